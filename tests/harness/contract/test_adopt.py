import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from harness.contract import SampleSet, assemble, convert, sample_set_from_folder, sample_set_from_npz
from harness.contract.digest import digest_pixels, digest_sequence
from harness.contract.errors import BadSamples, UserError
from harness.contract.images import encode_png

SETS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: hnp.arrays(np.uint8, (shape[0], shape[1], shape[1], 3))
)


def noise(count=10, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


# --- conversion ------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(images_u8=SETS, save=st.sampled_from([np.savez, np.savez_compressed]))
def test_npz_to_png_and_back_keeps_every_byte_that_matters(tmp_path_factory, images_u8, save):
    folder = tmp_path_factory.mktemp("convert")
    save(folder / "theirs.npz", images_u8)
    first = sample_set_from_npz(folder / "theirs.npz", folder / "first")
    as_png = convert(folder / "first", folder / "png", "png")
    as_npz = convert(folder / "png", folder / "npz", "npz")
    assert first.digest == as_png.digest == as_npz.digest == digest_sequence(map(digest_pixels, images_u8))
    np.testing.assert_array_equal(np.concatenate(list(as_png.batches())), images_u8)
    for name in ("samples.npz", "index.jsonl", "samples.json"):
        assert (folder / "first" / name).read_bytes() == (folder / "npz" / name).read_bytes()
    adopted = sample_set_from_folder(folder / "png" / "images", folder / "adopted")
    assert adopted.digest == first.digest


@pytest.mark.parametrize("form", ["npz", "png"])
def test_conversion_keeps_requests_labels_and_generator(make_samples, class_set, tmp_path, form):
    source = make_samples(class_set, "png" if form == "npz" else "npz")
    converted = SampleSet.open(convert(source.folder, tmp_path / "out", form).folder)
    converted.validate()
    assert converted.form == form
    assert list(converted.requests) == list(class_set)
    assert converted.labels.tolist() == class_set.labels
    assert converted.generator == source.generator


def test_the_same_conversion_again_changes_nothing(make_samples, class_set, tmp_path):
    source = make_samples(class_set)
    convert(source.folder, tmp_path / "out", "png")
    before = (tmp_path / "out" / "samples.json").stat().st_mtime_ns
    assert convert(source.folder, tmp_path / "out", "png").digest == source.digest
    assert (tmp_path / "out" / "samples.json").stat().st_mtime_ns == before


def test_conversion_does_not_overwrite_another_set(make_samples, class_set, prompt_set):
    source, other = make_samples(class_set), make_samples(prompt_set, name="other")
    with pytest.raises(UserError, match="already holds a sample set"):
        convert(source.folder, other.folder, "png")
    with pytest.raises(UserError, match="already holds a sample set"):
        convert(source.folder, source.folder, "png")


def test_conversion_of_damaged_samples_leaves_nothing_trusted(make_samples, prompt_set, tmp_path):
    source = make_samples(prompt_set, "png")
    Image.new("RGB", (8, 8)).save(source.folder / "images" / prompt_set[4].path)
    with pytest.raises(BadSamples, match="does not match its hash in index"):
        convert(source.folder, tmp_path / "out", "npz")
    assert not (tmp_path / "out" / "samples.json").exists()


def test_conversion_notices_a_disk_that_lies(make_samples, class_set, tmp_path, monkeypatch):
    """What is compared is what the disk gives back, not what was sent to it."""
    source = make_samples(class_set)
    black = encode_png(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(assemble, "encode_png", lambda image_u8: black)
    with pytest.raises(BadSamples, match=r"000000\.png: does not match its hash"):
        convert(source.folder, tmp_path / "out", "png")
    assert not (tmp_path / "out" / "samples.json").exists()
    monkeypatch.undo()
    assert convert(source.folder, tmp_path / "out", "png").digest == source.digest


def test_an_unknown_form_is_refused(make_samples, class_set, tmp_path):
    with pytest.raises(UserError, match="'npz' or 'png', not 'jpg'"):
        convert(make_samples(class_set).folder, tmp_path / "out", "jpg")
    assert not (tmp_path / "out").exists()


# --- somebody else's NPZ ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["npz", "png"])
def test_an_npz_is_adopted_in_either_form(tmp_path, form):
    np.savez_compressed(tmp_path / "theirs.npz", noise())
    samples = sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out", form=form)
    samples = SampleSet.open(samples.folder)
    samples.validate()
    np.testing.assert_array_equal(samples.images(range(10)), noise())
    assert (samples.requests, samples.labels, samples.form) == (None, None, form)
    assert samples.ids[:2] == ["000000", "000001"]
    assert samples.generator == {"name": "adopted", "source": "theirs.npz"}


@pytest.mark.parametrize(
    ("generator", "kind"),
    [
        (None, None),
        ({"name": "x", "kind": "generated"}, "generated"),
        ({"name": "x", "kind": "reconstructions"}, "reconstructions"),
        ({"name": "x", "kind": "diffusion"}, None),  # a word of their own
        ({"name": "x", "kind": ["generated"]}, None),
    ],
)
def test_a_set_is_of_the_kind_that_its_generator_records(tmp_path, generator, kind):
    np.savez(tmp_path / "theirs.npz", noise())
    sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out", generator=generator)
    assert SampleSet.open(tmp_path / "out").kind == kind


@pytest.mark.parametrize("name", ["labels", "arr_1"])
def test_labels_beside_the_images_are_adopted(tmp_path, name):
    np.savez(tmp_path / "theirs.npz", arr_0=noise(), **{name: np.arange(10, dtype=np.int32)})
    samples = sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")
    assert samples.labels.tolist() == list(range(10))
    convert(tmp_path / "out", tmp_path / "png", "png").validate()
    assert SampleSet.open(tmp_path / "png").labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    "labels", [np.zeros(9, np.int64), np.zeros(10), np.zeros((10, 1), np.int64), np.full(10, -1), np.full(10, 2**31)]
)
def test_labels_that_are_none_are_refused(tmp_path, labels):
    np.savez(tmp_path / "theirs.npz", arr_0=noise(), labels=labels)
    with pytest.raises(BadSamples, match=r"theirs\.npz: 'labels' is .*not 10 class numbers"):
        sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")


def test_an_npz_is_adopted_as_the_answer_to_requests(tmp_path, prompt_set):
    np.savez(tmp_path / "theirs.npz", noise(6))
    samples = sample_set_from_npz(
        tmp_path / "theirs.npz", tmp_path / "out", requests=prompt_set, generator={"name": "x"}
    )
    samples.validate()
    assert samples.ids == [request.id for request in prompt_set]
    assert (samples.request_digest, samples.generator) == (prompt_set.digest, {"name": "x"})


WRONG_ARRAYS = {
    "floats": (noise().astype(np.float32), "float32, not uint8; save np.clip"),
    "wide integers": (noise().astype(np.int64), "int64, not uint8"),
    "channels first": (noise().transpose(0, 3, 1, 2), r"channels first; save images\.transpose"),
    "gray": (noise()[..., 0], r"not \(N, H, W, 3\)"),
    "one image": (noise()[0], r"not \(N, H, W, 3\)"),
    "alpha": (np.zeros((2, 8, 8, 4), np.uint8), r"not \(N, H, W, 3\)"),
    "not square": (noise()[:, :4], "8x4; crop them"),
    "no images": (noise()[:0], "holds no images"),
    "no pixels": (np.zeros((2, 0, 0, 3), np.uint8), "0x0; crop them"),
    "Fortran order": (np.asfortranarray(noise()), "Fortran order; save np.ascontiguousarray"),
    "objects": (np.array([None, {}], dtype=object), "Python objects"),
    "too few": (noise(5), "holds 5 images where 6 were requested"),
    "another size": (noise(6, 16), "the images are 16 px where 8 px were requested"),
}


@pytest.mark.parametrize(("array", "sentence"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS.keys())
def test_an_npz_of_another_kind_is_refused_by_name(tmp_path, prompt_set, array, sentence):
    np.savez(tmp_path / "theirs.npz", array)
    with pytest.raises(BadSamples, match=rf"theirs\.npz.*{sentence}"):
        sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out", requests=prompt_set)
    assert not (tmp_path / "out").exists()


def test_damage_in_the_middle_of_an_npz_leaves_nothing_trusted(tmp_path):
    np.savez(tmp_path / "theirs.npz", noise(40, 32))
    damaged = bytearray((tmp_path / "theirs.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "theirs.npz").write_bytes(bytes(damaged))
    with pytest.raises(BadSamples, match=r"theirs\.npz: is not a whole NPZ archive"):
        sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")
    assert not (tmp_path / "out" / "samples.json").exists()
    np.savez(tmp_path / "theirs.npz", noise(40, 32))
    sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out").validate()


def test_a_set_that_is_there_is_not_overwritten(tmp_path):
    np.savez(tmp_path / "theirs.npz", noise())
    sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")
    with pytest.raises(UserError, match="already holds a sample set"):
        sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")


# --- somebody else's folder ------------------------------------------------------------------------------------------


def save_all(folder, names, images_u8):
    for name, image_u8 in zip(names, images_u8, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_u8).save(folder / name)


def test_a_folder_is_adopted_in_the_order_of_its_paths(tmp_path):
    save_all(tmp_path / "theirs", ["b/2.png", "a.png", "b/1.PNG"], noise(3))
    (tmp_path / "theirs" / "notes.txt").touch()
    samples = sample_set_from_folder(tmp_path / "theirs", tmp_path / "out", form="png")
    samples.validate()
    assert samples.ids == ["a.png", "b/1.PNG", "b/2.png"]
    np.testing.assert_array_equal(samples.images(range(3)), noise(3)[[1, 2, 0]])
    assert samples.generator == {"name": "adopted", "source": "theirs"}


def test_a_folder_is_adopted_as_the_answer_to_requests(tmp_path, prompt_set):
    save_all(tmp_path / "theirs", [request.path for request in prompt_set], noise(6))
    save_all(tmp_path / "theirs", ["overview.png"], noise(1, 64))
    samples = sample_set_from_folder(tmp_path / "theirs", tmp_path / "out", requests=prompt_set)
    samples.validate()
    assert samples.ids == [request.id for request in prompt_set]
    np.testing.assert_array_equal(samples.images(range(6)), noise(6))


def test_an_image_that_was_not_drawn_is_named(tmp_path, prompt_set):
    save_all(tmp_path / "theirs", [request.path for request in prompt_set][:4], noise(4))
    with pytest.raises(BadSamples, match=r"00002/samples/0000\.png: is missing, with 1 more of 6; draw each image"):
        sample_set_from_folder(tmp_path / "theirs", tmp_path / "out", requests=prompt_set)


@pytest.mark.parametrize(
    ("name", "image", "sentence"),
    [
        ("b.png", Image.new("RGB", (9, 9)), r"b\.png: is 9x9 pixels where the first image has 8x8; bring all"),
        ("b.png", Image.new("RGB", (8, 9)), r"b\.png: is 8x9 pixels"),
        ("a.png", Image.new("RGB", (8, 9)), r"a\.png: is 8x9 pixels; crop the images to squares"),
        ("b.png", Image.new("RGBA", (8, 8)), r"b\.png: has transparent pixels"),
        ("b.png", Image.new("I;16", (8, 8)), r"b\.png: has 16 bits"),
        ("new\nline.png", Image.new("RGB", (8, 8)), "control characters; rename the file"),
        ("back\\slash.png", Image.new("RGB", (8, 8)), "backslash.*rename the file"),
    ],
)
def test_a_folder_with_one_image_of_another_kind_is_refused_by_name(tmp_path, name, image, sentence):
    save_all(tmp_path / "theirs", ["aa.png", "c.png"], noise(2))
    image.save(tmp_path / "theirs" / name)
    with pytest.raises(BadSamples, match=sentence):
        sample_set_from_folder(tmp_path / "theirs", tmp_path / "out")
    assert not (tmp_path / "out" / "samples.json").exists()


def test_two_images_that_want_one_path_are_refused(tmp_path):
    save_all(tmp_path / "theirs", ["a.jpg", "a.jpg.png"], noise(2))
    with pytest.raises(BadSamples, match=r"path 'a\.jpg\.png' occurs twice"):
        sample_set_from_folder(tmp_path / "theirs", tmp_path / "out")


def test_a_folder_without_images_and_a_file_are_refused(tmp_path):
    with pytest.raises(BadSamples, match="has no images"):
        sample_set_from_folder(tmp_path, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(BadSamples, match=r"is not a folder; give a folder of images, or an \.npz file"):
        sample_set_from_folder(tmp_path / "file", tmp_path / "out")


def test_a_name_that_is_not_unicode_is_refused_with_its_file(tmp_path):
    save_all(tmp_path / "theirs", ["a.png", "caf\udce9.png"], noise(2))
    with pytest.raises(BadSamples, match="the path is not valid Unicode; rename the file"):
        sample_set_from_folder(tmp_path / "theirs", tmp_path / "out")


def test_two_images_that_want_one_path_are_both_named(tmp_path):
    save_all(tmp_path / "theirs", ["b/a.jpg", "b/a.jpg.png"], noise(2))
    with pytest.raises(BadSamples, match=r"occurs twice, for 'b/a\.jpg' and 'b/a\.jpg\.png'"):
        sample_set_from_folder(tmp_path / "theirs", tmp_path / "out")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_advice_for_floats_saturates_in_no_range(tmp_path, dtype):
    np.savez(tmp_path / "theirs.npz", noise().astype(dtype))
    with pytest.raises(BadSamples, match=r"within -1\.\.1, .*within 0\.\.1, .*within 0\.\.255") as caught:
        sample_set_from_npz(tmp_path / "theirs.npz", tmp_path / "out")
    ways = re.findall(r"([\dx][^,;]*?)(?: for x)? within (-?\d)\.\.(\d+)", str(caught.value).partition("with y = ")[2])
    expected = noise().astype(np.float64)
    for (formula, low, high), x in zip(ways, (expected / 127.5 - 1, expected / 255, expected), strict=True):
        assert float(low) <= x.min() and x.max() <= float(high)
        y = np.clip(eval(formula, {"x": x}), 0, 255).astype(np.uint8)
        assert np.abs(y - expected).max() <= 1
