"""What lets pages about adm run as they are: its shipped case under their names, environments built already."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.docs.pages import ROOT


def real_environments(world: Path) -> Path:
    """The home folder of `world`, which shares the environments that this machine has built already."""
    built = Path.home() / ".cache/gear-harness/envs"
    home = world / "home"
    if built.is_dir() and not (home / "envs").exists():
        (home / "envs").symlink_to(built)
    return home


def shipped_samples(world: Path) -> None:
    """The samples of adm's gold check as `samples.npz`, and with the last one inverted as `other.npz`."""
    images_u8 = np.load(ROOT / "benchmarks/adm/check/samples/samples.npz")["arr_0"]
    np.savez(world / "samples.npz", arr_0=images_u8)
    np.savez(world / "other.npz", arr_0=np.concatenate([images_u8[:-1], 255 - images_u8[-1:]]))
