"""Modules that a test file names at its top and that are imported when a test uses them.

PyTorch and its libraries take seconds to import, which collecting the tests should not cost.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module: `torch: Any = LazyModule("torch")`."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__dict__["_name"]), attribute)
