"""Where GEAR's steps run, and which of its code decides what they make."""

from __future__ import annotations

from harness.catalog.project import Project
from harness.planning.steps import Environment

CORE = Environment(name="core", image="core")
"""Where GEAR trains and samples: the image `core`, or the environment that the harness itself runs in."""

TRAINING_ONLY = (
    "gear/training",
    "gear/losses",
    "gear/teachers",
    "gear/data",
    "harness/scoring/networks",  # teachers and monitors
    "gear/align.py",
    "gear/cli",
    "gear/bench",
)
"""Code of gear that cannot change a sample; editing it must not invalidate samples."""


def gear_code_digest(project: Project, *, training: bool = False) -> str:
    """Digest of the code of gear that affects a sample; with `training`, also of the code that affects training."""
    files = project.code_files(["gear", "harness/contract", "harness/scoring/networks"])
    return project.code_digest([name for name in files if training or not name.startswith(TRAINING_ONLY)])
