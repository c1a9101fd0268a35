"""What `harness doctor` looks at: whether this machine can run what it will be asked to run, before it is asked."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.report.formats import in_words
from harness.running.setting import Setting

_LITTLE_DISK_GB = 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True
    """Whether runs fail without it."""


def checks(setting: Setting, home: Path) -> list[Finding]:
    """Everything but the assets, most basic first."""
    runtime = [Finding(name=c.name, ok=c.ok, detail=c.detail, fix=c.fix) for c in setting.runtime.checks()]
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding(name="python", ok=True, detail=f"{version} at {sys.executable}"),
        *runtime,
        _writable("home", home, "export HARNESS_HOME=DIR"),
        _writable("runs", setting.runs_dir, "--runs DIR"),
        _disk(setting.runs_dir),
        _machine(setting),
    ]


def _writable(name: str, folder: Path, fix: str) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(name=name, ok=False, detail=f"{folder}: {error.strerror}", fix=f"choose another folder: {fix}")
    return Finding(name=name, ok=True, detail=f"{folder}")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    ok = free_gb >= _LITTLE_DISK_GB
    fix = "" if ok else "50,000 images of 256 px take 10 GB; free some space, or --runs DIR on another disk"
    return Finding(name="disk", ok=ok, detail=f"{free_gb:,.0f} GB free for runs", fix=fix, required=False)


def _machine(setting: Setting) -> Finding:
    machine = setting.machine
    gpus = f"GPU {in_words(machine.gpus)}" if machine.gpus else "no GPU (drawing and some scorers will be slow)"
    return Finding(name="machine", ok=True, detail=f"{machine.cpus} cores, {machine.memory_gb:.0f} GB memory, {gpus}")
