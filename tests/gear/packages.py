"""Fake installed packages for tests."""

from __future__ import annotations

from pathlib import Path

import pytest


def installed_lpips(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package `lpips` keeps its linear heads, as its wheel lays them out; the test writes the file.

    Importing this package fails, since nothing should.
    """
    package = folder / "site-packages" / "lpips"
    heads = package / "weights" / "v0.1" / "vgg.pth"
    heads.parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package lpips was imported')\n")
    monkeypatch.syspath_prepend(folder / "site-packages")
    return heads
