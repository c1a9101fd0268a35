"""The packages of docs/add-a-runtime.md and examples/generator_plugin, installed and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from harness.contract import SampleSet
from tests.docs.conftest import variables, write_benchmarks, write_samples
from tests.docs.pages import ROOT, commands, files

PAGE = ROOT / "docs/add-a-runtime.md"
EXAMPLE = ROOT / "examples/generator_plugin"


def install(package: Path, site: Path) -> None:
    """What an installer does with a pure Python package: its modules, and its metadata with the entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    for folder in package.iterdir():
        if (folder / "__init__.py").exists() or any(folder.glob("*.py")):
            shutil.copytree(folder, site / folder.name)
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small benchmarks and samples, beside `site`, which holds the two packages."""
    root = tmp_path_factory.mktemp("plugins")
    write_benchmarks(root / "benchmarks")
    write_samples(root)
    for name, text, _ in files(PAGE):
        if not name.startswith("examples/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    install(root / "lab_harness", root / "site")
    install(EXAMPLE, root / "site")
    return root


def harness(root: Path, *words: str, status: int = 0) -> str:
    """What the command prints, in another process with the packages installed."""
    environment = {**os.environ, **variables(root)}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "site"), environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_runtime_scheduler_exporter_and_command_of_the_page_work(packages: Path):
    """The page's commands, with a small benchmark in the place of adm."""
    score = ["score", "small_adm", "--samples"]
    harness(packages, *score, "samples.npz", "--runtime", "nice", "--scheduler", "in-order", "--name", "first")
    harness(packages, *score, "other.npz", "--name", "second")
    shown = harness(packages, "show", "first", "--json")
    assert '"runtime": "nice"' in shown
    table = harness(packages, "export", "first", "second", "--to", "latex")
    assert table.startswith(r"\begin{tabular}") and table.count("Brightness") == 2
    assert harness(packages, "best", "gfid").startswith(("first: Brightness", "second: Brightness"))
    assert "harness ls" in harness(packages, "best", "speed", status=2)
    dry = harness(packages, *score, "samples.npz", "--runtime", "nice", "--dry-run")
    assert " nice -n 19 " in dry
    assert "nice" in harness(packages, "doctor", "--runtime", "nice")


def test_the_commands_of_the_page_name_what_the_test_uses():
    lines = commands(PAGE)
    assert "harness export first second --to latex" in lines and "harness best gfid" in lines
    assert any("--runtime nice --scheduler in-order" in line for line in lines)


def test_the_example_generator_draws(packages: Path):
    run = ["run", "--benchmark", "small_adm"]
    harness(packages, *run, "--noise", "40", "--limit", "5", "--name", "noise")
    (step,) = (packages / "runs/noise/steps").glob("*sample-small_adm")
    samples = SampleSet.open(step / "output")
    images_u8 = samples.images(range(5))
    assert images_u8.min() >= 88 and images_u8.max() <= 168 and len(samples) == 5
    again = harness(packages, *run, "--noise", "40", "--limit", "5", "--name", "noise")
    assert "sample-small_adm" in again
    assert "whole number from 1 to 127" in harness(packages, *run, "--noise", "500", status=2)
    assert "--noise" in harness(packages, "run", "--help")


def test_the_page_shows_the_example_as_it_is():
    (shown,) = [text for name, text, _ in files(PAGE) if name.startswith("examples/")]
    assert shown == (EXAMPLE / "noise_generator/plugin.py").read_text()
    assert "harness run --benchmark adm --noise 40 --limit 1000" in commands(PAGE)


def test_examples_of_the_page_stay_short():
    for name, text, _ in files(PAGE):
        assert len(text.splitlines()) <= 40, name
