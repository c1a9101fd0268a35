"""Pairs of originals and reconstructions: the input for judging a tokenizer.

A pair set is a folder with `originals.npz` and `reconstructions.npz` (key `arr_0` each), or one `.npz` file with the
keys `originals` and `reconstructions`. Originals are (N, H, W, 3) uint8. Reconstructions are of the same shape: float16
or float32 within [0, 1], as the published protocol has them, or uint8, which rounds them. `gear pairs` writes the
folder; any other tokenizer needs two lines:

    np.savez("pairs.npz", originals=images_u8, reconstructions=((recon.clip(-1, 1) + 1) / 2).astype(np.float32))
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import BadSamples
from harness.contract.files import read_json
from harness.contract.npz import NpzMember, open_npz_member
from harness.contract.samples import check_images_header
from harness.scoring.screen import FLAT_SHARE

Array = npt.NDArray[Any]

MANIFEST = "pairs.json"
DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """An opened pair set: headers checked, pixels unread."""

    path: Path
    members: tuple[tuple[Path, str], tuple[Path, str]]
    """(archive, key) of originals and of reconstructions."""
    shape: tuple[int, int, int, int]
    """(N, H, W, 3)."""
    dtype: str
    """Of the reconstructions."""
    made: Mapping[str, Any]
    """How they were made, where that is stated: tokenizer, resize, ema."""

    @classmethod
    def open(cls, path: Path) -> PairSet:
        """Open a folder or an archive.

        Raises:
            BadSamples: it is not a pair set, or the two sides do not match.
        """
        members = _members(path)
        with open_npz_member(*members[0]) as originals, open_npz_member(*members[1]) as recon:
            check_images_header(originals.shape, originals.dtype, members[0][0])
            _check_reconstructions(originals, recon, members[1][0])
            if originals.shape[0] < 2:
                raise BadSamples(f"{path}: recon needs at least 2 pairs, but there is one; reconstruct more images.")
            return cls(
                path=path,
                members=members,
                shape=originals.shape,  # type: ignore[arg-type]
                dtype=recon.dtype.name,
                made=_made(path / MANIFEST),
            )

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def digest(self) -> str:
        """Digest of the bytes of the archives."""
        return digest_json([[key, sha256_file(file)] for file, key in self.members])

    @property
    def request_digest(self) -> None:
        """None: these images were not drawn for a request set."""
        return None

    @property
    def requests(self) -> None:
        """Likewise."""
        return None

    def batches(self, size: int, notes: list[str] | None = None) -> Iterator[tuple[Array, Array]]:
        """(originals, reconstructions) in order, both (n, H, W, 3) float32 in [0, 1].

        `notes` gets sentences for the record, after the last batch.

        Raises:
            BadSamples: an archive is damaged, a reconstruction is not finite or leaves the range, or one side has
                too many flat images (raised as soon as that is certain) or repeats a single image.
        """
        sides = ("originals", "reconstructions")
        screens = [Screen(file, side, len(self)) for (file, _), side in zip(self.members, sides, strict=True)]
        with ExitStack() as stack:
            originals, recon = (stack.enter_context(open_npz_member(*member)) for member in self.members)
            start = 0
            for images_u8, batch in zip(originals.batches(size), recon.batches(size), strict=True):
                pair = to_01(images_u8), self._checked(to_01(batch), start)
                for screen, images_01 in zip(screens, pair, strict=True):
                    screen.see(images_01)
                yield pair
                start += len(batch)
        found = [note for screen in screens for note in screen.notes()]
        if notes is not None:
            notes += found

    def _checked(self, recon_01: Array, start: int) -> Array:
        file, key = self.members[1]
        for row, image in enumerate(recon_01, start):
            low, high = float(image.min()), float(image.max())
            if not np.isfinite((low, high)).all():
                raise BadSamples(f"{file}: image {row} of {key!r} holds NaN or infinity; look at the tokenizer.")
            if low < 0.0 or high > 1.0:
                raise BadSamples(
                    f"{file}: image {row} of {key!r} goes from {low:.3g} to {high:.3g}, not within 0..1; save "
                    "(x.clip(-1, 1) + 1) / 2 for an output x within -1..1."
                )
        return recon_01


class Screen:
    """Checks one side of the pairs while it is read; what it refuses is a bug in the program that made them."""

    def __init__(self, file: Path, side: str, count: int) -> None:
        self.file = file
        self.side = side
        self.count = count
        self.num_flat = 0
        self.times: Counter[bytes] = Counter()

    def see(self, images_01: Array) -> None:
        """(n, H, W, 3). Raises BadSamples as soon as too many were flat."""
        self.num_flat += int((images_01.min(axis=(1, 2, 3)) == images_01.max(axis=(1, 2, 3))).sum())
        self.times.update(hashlib.sha256(image.tobytes()).digest() for image in images_01)
        if self.num_flat > FLAT_SHARE * self.count:
            raise BadSamples(
                f"{self.file}: {self.num_flat:,} or more of {self.count:,} {self.side} are one flat grey or black; "
                "check the program that wrote them, and make the pairs again."
            )

    def notes(self) -> list[str]:
        """Sentences for the record, after the last image. Raises BadSamples when they were all the same."""
        if len(self.times) == 1:
            raise BadSamples(
                f"{self.file}: all {self.count:,} {self.side} are the same image; check the program that wrote them, "
                "and make the pairs again."
            )
        surplus = self.count - len(self.times)
        found = {"are one flat grey or black": self.num_flat, "repeat another one to the last pixel": surplus}
        return [f"{n:,} of {self.count:,} {self.side} {what}." for what, n in found.items() if n]


def to_01(images: Array) -> Array:
    """uint8 / 255, or floats unchanged, in float32."""
    return images.astype(np.float32) / np.float32(255.0) if images.dtype == np.uint8 else images.astype(np.float32)


def _made(manifest: Path) -> dict[str, Any]:
    made = read_json(manifest, error=BadSamples) if manifest.is_file() else {}
    if not isinstance(made, dict):
        raise BadSamples(f"{manifest}: holds a {type(made).__name__}, not a JSON object; make the pairs again.")
    return made


def _members(path: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
    if path.is_file():
        return (path, "originals"), (path, "reconstructions")
    split = path / "originals.npz", path / "reconstructions.npz"
    if all(file.is_file() for file in split):
        return (split[0], "arr_0"), (split[1], "arr_0")
    if (path / "pairs.npz").is_file():
        return (path / "pairs.npz", "originals"), (path / "pairs.npz", "reconstructions")
    raise BadSamples(
        f"{path}: holds no pairs (originals.npz and reconstructions.npz, or pairs.npz with both); make them: "
        "gear pairs IMAGES --tokenizer SOURCE --out DIR"
    )


def _check_reconstructions(originals: NpzMember, recon: NpzMember, file: Path) -> None:
    if recon.dtype.name not in DTYPES:
        raise BadSamples(
            f"{file}: {recon.name!r} is {recon.dtype}; save float32 within 0..1, as the protocol has it, or uint8."
        )
    if recon.shape == (originals.shape[0], 3, *originals.shape[1:3]):
        raise BadSamples(f"{file}: {recon.name!r} is {recon.shape}, channels first; save x.transpose(0, 2, 3, 1).")
    if recon.shape != originals.shape:
        raise BadSamples(
            f"{file}: {recon.name!r} is {recon.shape} where the originals are {originals.shape}; save one "
            "reconstruction per original, in the same order and size."
        )
