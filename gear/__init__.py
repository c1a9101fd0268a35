"""GEAR: image tokenizers and autoregressive models, their joint training, and sampling.

import gear
tokenizer = gear.load_tokenizer("vq_ds16_c2i.pt")
code = tokenizer.encode(gear.load_image("cat.jpg", 256))
gear.save_image(tokenizer.decode(code.quant), "cat-again.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness import __version__

if TYPE_CHECKING:
    from gear.images import load_image as load_image
    from gear.images import save_image as save_image
    from gear.weights import check_pair as check_pair
    from gear.weights import load_ar as load_ar
    from gear.weights import load_tokenizer as load_tokenizer
    from gear.weights import open_model as open_model


_HOMES = {
    "load_image": "gear.images",
    "save_image": "gear.images",
    "check_pair": "gear.weights",
    "load_ar": "gear.weights",
    "load_tokenizer": "gear.weights",
    "open_model": "gear.weights",
}

__all__ = ["__version__", "check_pair", "load_ar", "load_image", "load_tokenizer", "open_model", "save_image"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: `gear --help` and `gear.__version__` need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gear' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
