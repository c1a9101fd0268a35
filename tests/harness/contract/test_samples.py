import json
import random
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.contract import SampleSet, SampleSetWriter, SamplingProtocol, class_requests
from harness.contract.digest import digest_pixels, digest_sequence, sha256_file
from harness.contract.errors import BadSamples
from harness.contract.npz import NpzStreamWriter

FORMS = pytest.mark.parametrize("form", ["npz", "png"])


def draw(requests):
    size = requests.protocol.image_size
    return np.stack([np.random.default_rng(r.seed).integers(0, 256, (size, size, 3), np.uint8) for r in requests])


@FORMS
def test_a_sample_set_holds_what_was_drawn(make_samples, class_set, form):
    samples = SampleSet.open(make_samples(class_set, form).folder)
    images_u8 = draw(class_set)
    np.testing.assert_array_equal(np.concatenate(list(samples.batches(3))), images_u8)
    np.testing.assert_array_equal(samples.images([7, 0, -1, 7]), images_u8[[7, 0, 9, 7]])
    assert samples.images([]).shape == (0, 8, 8, 3)
    assert (len(samples), samples.image_size, samples.form) == (10, 8, form)
    assert samples.digest == digest_sequence(map(digest_pixels, images_u8))
    assert samples.labels.tolist() == class_set.labels
    assert samples.labels.dtype == np.int64
    assert list(samples.requests) == list(class_set)
    assert samples.request_digest == class_set.digest
    assert samples.generator == {"name": "noise", "options": {"scale": 1.5}}
    samples.validate()


@FORMS
def test_a_text_conditional_set_has_prompts_and_no_labels(make_samples, prompt_set, form):
    samples = make_samples(prompt_set, form)
    samples.validate()
    assert samples.labels is None
    assert samples.ids == [request.id for request in prompt_set]
    assert samples.requests[0].prompt == "a photo of 0 Füchse"


def test_the_npz_is_what_other_programs_expect(make_samples, class_set):
    with np.load(make_samples(class_set).npz_path) as loaded:
        assert (loaded["arr_0"].dtype, loaded["arr_0"].shape) == (np.uint8, (10, 8, 8, 3))
        np.testing.assert_array_equal(loaded["arr_0"], draw(class_set))
        assert loaded["labels"].tolist() == class_set.labels


def test_the_png_tree_has_the_requested_paths(make_samples, prompt_set):
    samples = make_samples(prompt_set, "png")
    for request, image_u8 in zip(prompt_set, draw(prompt_set), strict=True):
        with Image.open(samples.folder / "images" / request.path) as image:
            np.testing.assert_array_equal(np.asarray(image), image_u8)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 9), size=st.integers(1, 9), shard_size=st.integers(1, 12), batch=st.integers(1, 12))
def test_shards_batches_and_form_do_not_change_the_digest(tmp_path_factory, count, size, shard_size, batch):
    folder = tmp_path_factory.mktemp("samples")
    requests = class_requests("b", 1, SamplingProtocol(image_size=size), count=count, num_classes=3)
    images_u8 = draw(requests)
    for form in ("npz", "png"):
        writer = SampleSetWriter(folder / form, requests, {}, form=form, shard_size=shard_size)
        for shard in writer.missing():
            writer.write(shard, images_u8[shard.start : shard.stop])
        samples = writer.finish()
        assert samples.digest == digest_sequence(map(digest_pixels, images_u8))
        np.testing.assert_array_equal(np.concatenate(list(samples.batches(batch))), images_u8)
    assert (folder / "npz" / "index.jsonl").read_bytes() == (folder / "png" / "index.jsonl").read_bytes()


# --- sets that are not what they should be ---------------------------------------------------------------------------


def refuse(folder, sentence):
    """The set is refused, on opening or at the latest on validation, by a sentence that fits."""

    def open_and_validate():
        SampleSet.open(folder).validate()

    with pytest.raises(BadSamples, match=sentence):
        open_and_validate()


def edit_manifest(folder, **changes):
    path = folder / "samples.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_index(folder, number, vouch=False, **changes):
    path = folder / "index.jsonl"
    lines = path.read_text().splitlines()
    row = {**json.loads(lines[number]), **changes}
    lines[number] = json.dumps({key: value for key, value in row.items() if value is not ...})
    path.write_text("\n".join(lines) + "\n")
    if vouch:
        edit_manifest(folder, index_sha256=sha256_file(path))


def replace_pixels(folder, array, labels=None):
    extra = {} if labels is None else {"labels": labels}
    with NpzStreamWriter(
        folder / "samples.npz", count=len(array), shape_tail=array.shape[1:], dtype=array.dtype, extra=extra
    ) as writer:
        writer.append(array)


DAMAGED_MANIFESTS = {
    "another kind of file": ({"format": "request-set"}, "a different kind of file"),
    "a version from the future": ({"schema_version": 9}, "schema_version 9 is not the 1"),
    "an unknown form": ({"form": "jpg"}, "choose one of npz, png"),
    "a form that is a list": ({"form": ["npz"]}, "choose one of npz, png"),
    "no images": ({"count": 0}, "count"),
    "too many images": ({"count": 11}, "lists 10 images where samples.json says 11"),
    "another size": ({"image_size": 16}, r"not plain \(10, 16, 16, 3\)"),
    "an absurd size": ({"image_size": 10**9}, "image_size"),
    "another digest": ({"digest": "0" * 64}, "index.jsonl: does not match its sha256 in samples.json"),
    "no digest": ({"digest": None}, "digest"),
    "another index": ({"index_sha256": "0" * 64}, "index.jsonl: does not match its sha256 in samples.json"),
    "other requests": ({"request_digest": "0" * 64}, "not the request set of the samples"),
    "an unknown field": ({"sizes": 1}, "has no field 'sizes'"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED_MANIFESTS.values(), ids=DAMAGED_MANIFESTS.keys())
def test_a_damaged_manifest_is_refused(make_samples, class_set, changes, sentence):
    folder = make_samples(class_set).folder
    edit_manifest(folder, **changes)
    refuse(folder, sentence)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"count": NaN}'])
def test_a_manifest_that_is_no_json_object_is_refused(make_samples, class_set, data):
    folder = make_samples(class_set).folder
    (folder / "samples.json").write_bytes(data)
    refuse(folder, r"samples\.json")


DAMAGED_INDICES = {
    "an id twice": ({"id": "adm/000000"}, "id 'adm/000000' occurs twice"),
    "a path twice": ({"path": "000000.png"}, "path '000000.png' occurs twice"),
    "a path upwards": ({"path": "../x.png"}, r"line 5: the path '\.\./x\.png' has"),
    "an absolute path": ({"path": "/x.png"}, "line 5: the path .* is absolute"),
    "a backslash": ({"path": "a\\x.png"}, "backslash"),
    "no hash": ({"sha256": ...}, "line 5: the field 'sha256' is missing"),
    "half a hash": (
        {"sha256": "abc"},
        r"line 5: sha256 must be text that is a sha256 \(64 lower-case hexadecimal digits\)",
    ),
    "no label": ({"label": ...}, "some images have a label and some have none"),
    "a label that is text": ({"label": "x"}, "label"),
    "an unknown field": ({"row": 1}, "line 5 has no field 'row'"),
    "another hash": ({"sha256": "0" * 64}, "does not match its sha256"),
    "another id": ({"id": "mine"}, "does not match its sha256"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED_INDICES.values(), ids=DAMAGED_INDICES.keys())
def test_a_damaged_index_is_refused(make_samples, class_set, changes, sentence):
    folder = make_samples(class_set).folder
    edit_index(folder, 4, **changes)
    refuse(folder, sentence)


@pytest.mark.parametrize("changes", [{"id": "mine"}, {"path": "mine.png"}, {"label": 77}])
def test_an_index_that_does_not_answer_its_requests_is_refused(make_samples, class_set, changes):
    folder = make_samples(class_set).folder
    edit_index(folder, 4, vouch=True, **changes)
    refuse(folder, "not the request set of the samples|another path or label than its request")


def test_files_that_are_missing_are_named(make_samples, class_set, tmp_path):
    whole = make_samples(class_set).folder
    for name in ("index.jsonl", "samples.npz", "requests.json", "requests.jsonl"):
        shutil.copytree(whole, tmp_path / name)
        (tmp_path / name / name).unlink()
        refuse(tmp_path / name, f"{name}: (is missing|cannot be read)")


def test_a_folder_without_a_manifest_is_told_how_to_become_a_set(tmp_path):
    refuse(tmp_path, r"not a sample set; for your own NPZ or image folder run python -m harness\.contract adopt")


def test_an_unfinished_set_is_called_unfinished(tmp_path, class_set):
    SampleSetWriter(tmp_path, class_set, {})
    refuse(tmp_path, "not finished; run the drawing command again")


WRONG_PIXELS = {
    "too few": (np.zeros((9, 8, 8, 3), np.uint8), r"is \(9, 8, 8, 3\), not plain \(10, 8, 8, 3\)"),
    "too many": (np.zeros((11, 8, 8, 3), np.uint8), r"is \(11, 8, 8, 3\)"),
    "too large": (np.zeros((10, 9, 9, 3), np.uint8), r"is \(10, 9, 9, 3\)"),
    "floats": (np.zeros((10, 8, 8, 3), np.float32), "float32, not uint8; save np.clip"),
    "channels first": (np.zeros((10, 3, 8, 8), np.uint8), r"channels first; save images\.transpose\(0, 2, 3, 1\)"),
    "gray": (np.zeros((10, 8, 8), np.uint8), r"not \(N, H, W, 3\)"),
    "alpha": (np.zeros((10, 8, 8, 4), np.uint8), r"not \(N, H, W, 3\)"),
    "not square": (np.zeros((10, 8, 9, 3), np.uint8), "9x8; crop them to a square"),
    "none": (np.zeros((0, 8, 8, 3), np.uint8), "holds no images"),
    "other pixels": (np.zeros((10, 8, 8, 3), np.uint8), "image 0: does not match its hash"),
}


@pytest.mark.parametrize(("array", "sentence"), WRONG_PIXELS.values(), ids=WRONG_PIXELS.keys())
def test_other_arrays_in_the_npz_are_refused(make_samples, class_set, array, sentence):
    folder = make_samples(class_set).folder
    replace_pixels(folder, array, labels=np.array(class_set.labels))
    refuse(folder, rf"samples\.npz.*{sentence}")


def test_a_compressed_npz_is_refused(make_samples, class_set):
    folder = make_samples(class_set).folder
    np.savez_compressed(folder / "samples.npz", draw(class_set))
    refuse(folder, "arr_0 is compressed")


def test_an_npz_with_more_in_it_is_refused(make_samples, class_set):
    folder = make_samples(class_set).folder
    with zipfile.ZipFile(folder / "samples.npz", "a") as archive:
        archive.writestr("arr_1.npy", b"x")
    refuse(folder, "holds 'arr_1' besides arr_0 and labels")


def test_other_labels_in_the_npz_are_refused(make_samples, class_set):
    folder = make_samples(class_set).folder
    replace_pixels(folder, draw(class_set), labels=np.zeros(10, np.int64))
    refuse(folder, "'labels' are not those of index.jsonl")
    replace_pixels(folder, draw(class_set))
    refuse(folder, "has no array 'labels'")


def test_one_changed_pixel_is_found_wherever_it_is_read(make_samples, class_set):
    folder = make_samples(class_set).folder
    images_u8 = draw(class_set)
    images_u8[6, 0, 0, 0] ^= 1
    replace_pixels(folder, images_u8, labels=np.array(class_set.labels))
    refuse(folder, r"samples\.npz, image 6: does not match its hash")
    samples = SampleSet.open(folder)
    samples.images([5, 7])
    with pytest.raises(BadSamples, match="image 6"):
        samples.images([6])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_npz_set_goes_unnoticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("samples")
    requests = class_requests("b", 1, SamplingProtocol(image_size=2), count=2, num_classes=3)
    writer = SampleSetWriter(folder, requests, {})
    for shard in writer.missing():
        writer.write(shard, draw(requests))
    writer.finish()
    path = folder / data.draw(st.sampled_from(["samples.npz", "index.jsonl"]))
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged))
    try:
        samples = SampleSet.open(folder)
        found = np.concatenate(list(samples.batches()))
    except BadSamples:
        return
    np.testing.assert_array_equal(found, draw(requests))
    assert samples.ids == [request.id for request in requests]


# --- the PNG form ----------------------------------------------------------------------------------------------------


def test_a_missing_png_is_named(make_samples, prompt_set):
    folder = make_samples(prompt_set, "png").folder
    for repeat in (0, 1):
        (folder / f"images/00001/samples/000{repeat}.png").unlink()
    refuse(folder, r"00001/samples/0000\.png: is missing, with 1 more of 6")


def test_a_stray_image_is_named(make_samples, prompt_set):
    folder = make_samples(prompt_set, "png").folder
    (folder / "images/00001/samples/copy.png").write_bytes(b"")
    refuse(folder, r"samples/copy\.png: is not in index\.jsonl; remove it")


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (Image.new("L", (8, 8)), "grayscale"),
        (Image.new("RGBA", (8, 8)), "RGB with alpha"),
        (Image.new("RGB", (9, 8)), "9x8 pixels, not 8x8"),
        (Image.new("RGB", (8, 8)), "does not match its hash"),
    ],
)
def test_a_png_of_another_kind_is_named(make_samples, prompt_set, image, sentence):
    folder = make_samples(prompt_set, "png").folder
    image.save(folder / "images/00001/samples/0000.png")
    refuse(folder, rf"00001/samples/0000\.png: .*{sentence}")


def test_a_png_that_was_cut_short_is_named(make_samples, prompt_set):
    folder = make_samples(prompt_set, "png").folder
    path = folder / "images/00001/samples/0000.png"
    path.write_bytes(path.read_bytes()[:100])
    refuse(folder, r"00001/samples/0000\.png: cannot be decoded .*copy or draw it again")


def test_a_png_that_is_a_link_to_elsewhere_is_refused(make_samples, prompt_set, tmp_path):
    folder = make_samples(prompt_set, "png").folder
    path = folder / "images/00001/samples/0000.png"
    path.rename(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(BadSamples, match="symbolic link leads out"):
        SampleSet.open(folder).validate()


def test_what_operating_systems_leave_behind_is_no_stray(make_samples, prompt_set):
    samples = make_samples(prompt_set, "png")
    folder = (samples.folder / "images" / prompt_set[0].path).parent
    for name in (".DS_Store", "._x.png", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"litter")
    SampleSet.open(samples.folder).validate()


@pytest.mark.parametrize("form", ["npz", "png"])
def test_any_change_of_a_text_of_a_set_is_noticed_or_harmless(make_samples, prompt_set, form):
    """samples.json, index.jsonl and the requests, bytes changed by chance, pieces put in and left out."""
    rng = random.Random(form)
    samples = make_samples(prompt_set, form)
    pieces = [b"", b"1e999", b"NaN", b"null", rb'"\ud800"', b"\xff", b"[" * 300, b"-1", b"9" * 5000, b"{}", b",", b"\0"]
    for name in ("samples.json", "index.jsonl", "requests.json", "requests.jsonl"):
        whole = (samples.folder / name).read_bytes()
        for _ in range(40):
            text = bytearray(whole)
            place = rng.randrange(len(text))
            text[place : place + rng.randrange(8)] = rng.choice([*pieces, rng.randbytes(1)])
            (samples.folder / name).write_bytes(bytes(text))
            try:
                found = SampleSet.open(samples.folder)
                found.validate()
            except BadSamples:
                continue
            assert found.digest == samples.digest and found.ids == samples.ids, bytes(text)
        (samples.folder / name).write_bytes(whole)
