"""From the options that say where steps run to the setting; not in `base`, which `harness --help` imports."""

from __future__ import annotations

from typing import Any

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.running.setting import Setting, make_setting


def take_setting(options: dict[str, Any]) -> Setting:
    """The setting from the values of `setting_options`, which are removed from `options`."""
    own = {name: options.pop(name) for name in ("runtime", "scheduler", "runs_dir", "assets", "images", "base_image")}
    project = find_project()
    return make_setting(project, Catalog.load(project), **own)
