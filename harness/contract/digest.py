"""SHA-256 digests of files, JSON values, pixels and sequences. All are 64 lower-case hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK_BYTES = 1 << 20
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(value: object) -> bool:
    """Tell whether `value` is the text of a SHA-256 digest as this module writes it."""
    return isinstance(value, str) and _HEX_DIGEST.fullmatch(value) is not None


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hash the bytes of a file, one MiB at a time."""
    state = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def canonical_json(value: Any) -> str:
    """Write `value` as JSON with sorted keys, no spaces and no NaN, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """Hash the canonical JSON of `value`. Names of files that are not UTF-8 are text with lone surrogates here."""
    return hashlib.sha256(canonical_json(value).encode(errors="surrogatepass")).hexdigest()


def digest_pixels(image_u8: np.ndarray) -> str:
    """Hash one image, (H, W, C) uint8: its shape, then its bytes in row-major order.

    The shape is part of what is hashed, so a 2x8 image never equals a 4x4 one with the same bytes.
    """
    if image_u8.dtype != np.uint8 or image_u8.ndim != 3:
        raise ValueError(f"digest_pixels takes one (H, W, C) uint8 image, not {image_u8.shape} {image_u8.dtype}")
    state = hashlib.sha256("x".join(map(str, image_u8.shape)).encode() + b"\n")
    state.update(np.ascontiguousarray(image_u8).data)
    return state.hexdigest()


def digest_sequence(digests: Iterable[str]) -> str:
    """Hash digests in order, one per line: `cut` and `sha256sum` in a shell arrive at the same value."""
    state = hashlib.sha256()
    for digest in digests:
        state.update(digest.encode() + b"\n")
    return state.hexdigest()
