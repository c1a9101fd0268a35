from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gear.data.digits import COLOURS, load_digits, tint, write_digits
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError


def test_the_splits_are_balanced_and_share_no_digit() -> None:
    train, held_out = load_digits("train"), load_digits("held_out")
    assert np.bincount(train.labels).tolist() == [800] * 10
    assert np.bincount(held_out.labels).tolist() == [200] * 10
    shapes = [
        {(255 - image).max(-1).astype(bool).tobytes() for image in split.images_u8} for split in (train, held_out)
    ]
    assert not shapes[0] & shapes[1]


def test_every_digit_appears_in_two_colours() -> None:
    train = load_digits("train")
    assert len(set(train.colour_ids.tolist())) == len(COLOURS)
    silhouettes: dict[bytes, set[int]] = {}
    for image, colour in zip(train.images_u8, train.colour_ids, strict=True):
        silhouettes.setdefault((255 - image).max(-1).astype(bool).tobytes(), set()).add(int(colour))
    assert {len(colours) for colours in silhouettes.values()} == {2}


def test_tint_puts_the_colour_where_the_ink_is_and_white_elsewhere() -> None:
    ink = np.array([[[0.0, 1.0]]])
    for index, colour in enumerate(COLOURS.values()):
        assert tint(ink, np.array([index]))[0, 0].tolist() == [[255, 255, 255], list(colour)]


def test_captions_name_colour_and_digit() -> None:
    digits = load_digits("held_out")
    index = int(np.flatnonzero((digits.labels == 7) & (digits.colour_ids == list(COLOURS).index("red")))[0])
    assert digits.caption(index) == "a photo of a red seven"
    index = int(np.flatnonzero((digits.labels == 8) & (digits.colour_ids == list(COLOURS).index("orange")))[0])
    assert digits.caption(index) == "a photo of an orange eight"


def test_the_files_are_the_same_every_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_digits(tmp_path / folder)
    for name in ("train.npz", "held_out.npz", "digits.json"):
        assert sha256_file(tmp_path / "a" / name) == sha256_file(tmp_path / "b" / name)
    with np.load(tmp_path / "a" / "held_out.npz", allow_pickle=False) as held_out:
        assert held_out["images_u8"].shape == (2000, 32, 32, 3)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="choose one of train, held_out"):
        load_digits("test")  # type: ignore[arg-type]
