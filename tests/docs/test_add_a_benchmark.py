"""docs/add-a-benchmark.md, followed literally in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import harness
from harness.cli import main
from tests.docs.pages import ROOT, blocks, files

PAGE = ROOT / "docs/add-a-benchmark.md"


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    return tmp_path


def follow(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What one command of the page prints."""
    words = line.split()
    match words:
        case ["mkdir", "-p", name]:
            (folder / name).mkdir(parents=True, exist_ok=True)
        case ["python", script]:
            subprocess.run([sys.executable, script], check=True)
        case ["export", assignment]:
            name, _, value = assignment.partition("=")
            monkeypatch.setenv(name, value.replace("$PWD", str(folder)))
        case ["harness", *rest]:
            done = CliRunner().invoke(main, rest)
            assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"
            return done.output
        case _:
            raise AssertionError(f"{PAGE.name}: {line} is no command that a reader can follow here")
    return ""


def test_the_page_leads_to_a_benchmark_with_the_number_it_states(empty_folder: Path, monkeypatch: pytest.MonkeyPatch):
    steps = [(start, name, text) for name, text, start in files(PAGE)]
    steps += [(block.start, "", block.text) for block in blocks(PAGE, "sh")]
    printed: dict[str, str] = {}
    for _, name, text in sorted(steps):
        if name:
            (empty_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (empty_folder / name).write_text(text)
            continue
        for line in text.splitlines():
            printed[line] = follow(line, empty_folder, monkeypatch)
    ((stated, count),) = re.findall(r"prints a contrast of ([\d.]+) levels over (\d+) images", PAGE.read_text())
    scores = [output for line, output in printed.items() if line.startswith("harness score contrast")]
    assert len(scores) == 2 and all(stated in output and count in output for output in scores), scores
    assert "contrast" in printed["harness ls"] and "adm" in printed["harness ls"]
    assert "pass" in printed["harness check contrast"] and "pass" in printed["harness check sharpness"]
    metric = harness.score("contrast", "samples.npz").metric("contrast")
    assert (metric.value, metric.n, metric.unit) == (float(stated), int(count), "levels")
    assert metric.interval is not None and metric.interval[0] < metric.value < metric.interval[1]


def test_what_the_page_promises_is_refused(empty_folder: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text, _ in files(PAGE):
        (empty_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (empty_folder / name).write_text(text)
    (empty_folder / "benchmarks/contrast/check").mkdir()
    subprocess.run([sys.executable, "make_samples.py"], check=True)
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(empty_folder / "benchmarks"))
    with pytest.raises(harness.UserError, match="margin"):
        harness.score("contrast", "samples.npz", options={"margin": -1})
    with pytest.raises(harness.UserError, match="leave nothing inside a margin of 8"):
        harness.score("contrast", "samples.npz", options={"margin": 8})
