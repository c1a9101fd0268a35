from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.recon.pairs import PairSet
from harness.contract.errors import BadSamples


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def recon(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.0, 1.0, (count, 8, 8, 3)).astype(np.float32)


def saved(folder: Path, originals: np.ndarray, reconstructions: np.ndarray) -> Path:
    np.savez(folder / "pairs.npz", originals=originals, reconstructions=reconstructions)
    return folder / "pairs.npz"


def test_an_archive_and_a_folder_of_two_are_read_alike(tmp_path: Path) -> None:
    archive = saved(tmp_path, images(), recon())
    folder = tmp_path / "pairs"
    folder.mkdir()
    np.savez(folder / "originals.npz", arr_0=images())
    np.savez_compressed(folder / "reconstructions.npz", arr_0=recon())
    for path in (archive, folder):
        pairs = PairSet.open(path)
        assert len(pairs) == 5
        ours, theirs = (np.concatenate(side) for side in zip(*pairs.batches(2), strict=True))
        np.testing.assert_array_equal(ours, images().astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(theirs, recon())


def test_rounded_reconstructions_are_read_as_fractions(tmp_path: Path) -> None:
    ((_, theirs),) = PairSet.open(saved(tmp_path, images(), images())).batches(9)
    assert theirs.max() <= 1.0


@pytest.mark.parametrize(
    ("originals", "reconstructions", "sentence"),
    [
        (images(), recon().transpose(0, 3, 1, 2), "channels first; save x.transpose"),
        (images(), recon(4), "one reconstruction per original"),
        (images(), recon().astype(np.float64), "is float64; save float32 within 0..1"),
        (images().astype(np.float32), recon(), "not uint8"),
        (images().transpose(0, 3, 1, 2), recon(), "channels first"),
        (images(), recon().astype(object), "Python objects"),
    ],
)
def test_sides_that_do_not_go_together_are_refused(
    tmp_path: Path, originals: np.ndarray, reconstructions: np.ndarray, sentence: str
) -> None:
    with pytest.raises(BadSamples, match=sentence):
        PairSet.open(saved(tmp_path, originals, reconstructions))


@pytest.mark.parametrize(
    ("value", "sentence"), [(np.nan, "image 3 .* holds NaN"), (-0.5, "image 3 .* goes from -0.5"), (1.5, "to 1.5")]
)
def test_values_that_are_no_image_are_refused_with_their_row(tmp_path: Path, value: float, sentence: str) -> None:
    broken = recon()
    broken[3, 0, 0, 0] = value
    with pytest.raises(BadSamples, match=sentence):
        list(PairSet.open(saved(tmp_path, images(), broken)).batches(2))


def test_one_pair_is_refused_when_the_set_is_opened(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match="at least 2 pairs"):
        PairSet.open(saved(tmp_path, images(1), recon(1)))


@pytest.mark.parametrize("side", ["originals", "reconstructions"])
def test_black_images_are_refused_with_the_first_batch(tmp_path: Path, side: str) -> None:
    given = {"originals": images(), "reconstructions": recon()}
    given[side] = np.zeros_like(given[side])
    batches = PairSet.open(saved(tmp_path, **given)).batches(2)
    with pytest.raises(BadSamples, match=f"2 or more of 5 {side} are one flat grey or black"):
        next(batches)


@pytest.mark.parametrize("side", ["originals", "reconstructions"])
def test_one_image_all_over_is_refused(tmp_path: Path, side: str) -> None:
    given = {"originals": images(), "reconstructions": recon()}
    given[side] = np.repeat(given[side][:1], 5, axis=0)
    with pytest.raises(BadSamples, match=f"all 5 {side} are the same image"):
        list(PairSet.open(saved(tmp_path, **given)).batches(2))


def test_few_flat_or_repeated_images_are_noted(tmp_path: Path) -> None:
    originals, notes = images(200), list[str]()
    originals[3], originals[7] = 0, originals[8]
    list(PairSet.open(saved(tmp_path, originals, recon(200))).batches(64, notes))
    assert notes == [
        "1 of 200 originals are one flat grey or black.",
        "1 of 200 originals repeat another one to the last pixel.",
    ]


def test_a_truncated_archive_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match="holds no pairs"):
        PairSet.open(tmp_path)
    path = saved(tmp_path, images(), recon())
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadSamples, match="not a whole NPZ archive"):
        PairSet.open(path)


def test_other_bytes_are_another_digest(tmp_path: Path) -> None:
    first = PairSet.open(saved(tmp_path, images(), recon())).digest
    assert PairSet.open(saved(tmp_path, images(), recon() / 2)).digest != first


@pytest.mark.parametrize("text", ["[1]", "null", "1e999", "{", '"\\ud800"'])
def test_a_manifest_that_is_no_object_is_refused_by_name(tmp_path: Path, text: str) -> None:
    images_u8 = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "pairs.npz", originals=images_u8, reconstructions=images_u8)
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(BadSamples, match=r"pairs\.json: (holds a|is not valid JSON)"):
        PairSet.open(tmp_path)
