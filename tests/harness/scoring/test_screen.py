from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.contract.adopt import sample_set_from_npz
from harness.contract.errors import BadSamples
from harness.contract.samples import SampleSet
from harness.scoring.screen import flat_digests, screen_samples


def adopted(folder: Path, images_u8: np.ndarray) -> SampleSet:
    np.savez(folder / "drawn.npz", arr_0=images_u8)
    return sample_set_from_npz(folder / "drawn.npz", folder / "samples")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_ordinary_images_pass_without_a_note(tmp_path: Path) -> None:
    assert screen_samples(adopted(tmp_path, images(9)), "adm", at_least=4) == []


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match="holds 3 images, adm needs at least 4; draw more"):
        screen_samples(adopted(tmp_path, images(3)), "adm", at_least=4)


def test_one_image_many_times_is_refused_even_where_duplicates_are_allowed(tmp_path: Path) -> None:
    samples = adopted(tmp_path, np.repeat(images(1), 6, axis=0))
    with pytest.raises(BadSamples, match="all 6 images are the same image"):
        screen_samples(samples, "adm", at_least=4, duplicates="allow")


def test_repeated_images_are_refused_and_named(tmp_path: Path) -> None:
    drawn = images(5)
    drawn[4] = drawn[1]
    samples = adopted(tmp_path, drawn)
    sentence = r"1 of 5 images repeat another one to the last pixel \(000004 is 000001\).*adm\.duplicates=allow"
    with pytest.raises(BadSamples, match=sentence):
        screen_samples(samples, "adm", at_least=4)
    (note,) = screen_samples(samples, "adm", at_least=4, duplicates="allow")
    assert note.startswith("1 of 5 images repeat")


def test_black_images_are_refused_when_they_are_many_and_noted_when_few(tmp_path: Path) -> None:
    many, few = images(10), images(200)
    many[:2] = np.array([0, 128], np.uint8)[:, None, None, None]
    few[0] = 0
    for name, drawn in (("many", many), ("few", few)):
        (tmp_path / name).mkdir()
        samples = adopted(tmp_path / name, drawn)
        if name == "many":
            with pytest.raises(BadSamples, match="2 of 10 images are one flat grey"):
                screen_samples(samples, "adm", at_least=4)
        else:
            assert screen_samples(samples, "adm", at_least=4) == ["1 of 200 images are one flat grey or black."]


def test_flat_images_are_known_by_256_digests() -> None:
    assert len(set(flat_digests(8))) == 256
