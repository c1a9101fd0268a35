"""Every command of README, CONTRIBUTING and docs/ is run, or at least read by the program it names.

What is not run as it stands is in RULES, with the reason. `tests/docs/test_add_a_benchmark.py`, `test_plugins.py` and
`test_add_to_gear.py` follow the pages that add something.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
import pytest
import yaml
from click.testing import CliRunner

from gear.cli import main as gear
from harness import api
from harness.cli import main as harness
from tests.docs.pages import PAGES, ROOT, commands

FOLLOWED_ELSEWHERE = {"add-a-benchmark.md", "add-a-runtime.md", "add-a-tokenizer.md", "add-a-teacher.md"}
FOLLOWED = [page for page in PAGES if page.name not in FOLLOWED_ELSEWHERE]
PROGRAMS = {"gear": gear, "harness": harness}


# --- ways to try a command -------------------------------------------------------------------------------------------


def run(line: str) -> None:
    """As a reader would. The two programs run in this process, which saves their start."""
    words = shlex.split(line)
    if words[0] in PROGRAMS:
        invoke(words)
    else:
        shell(line)


def shell(line: str, **variables: str) -> str:
    """What a line prints in a shell with these environment variables."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def invoke(words: list[str]) -> None:
    done = CliRunner().invoke(PROGRAMS[words[0]], words[1:])
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}{done.exception!r}"


def plan(line: str) -> None:
    """Everything up to the first step: options, files, protocol, plan."""

    def stop(*_: object, **__: object) -> NoReturn:
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "execute", stop)
        invoke(shlex.split(line))


def read(line: str) -> None:
    """Its words are options and arguments that the program has."""
    words = shlex.split(line)
    start = next(index for index, word in enumerate(words) if word in PROGRAMS or word == "train")
    program = words[start] if words[start] in PROGRAMS else "gear"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda self, ctx: None)
        invoke([program, *words[start + (words[start] in PROGRAMS) :]])


def batch_job(line: str) -> None:
    """`sbatch`: the script exists and bash can read it; what it is given, gear can."""
    words = shlex.split(line)
    if "--wrap" in words:
        return plan(words[words.index("--wrap") + 1])
    script = next(word for word in words if word.endswith(".sh"))
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    return read(line[line.index(script) + len(script) :])


def dry_run(line: str) -> None:
    """The training script says what it would start, and gear can read that."""
    read(shell(line, DRY_RUN="1").splitlines()[-1])


def make_target(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


def containers(line: str) -> None:
    """The files, services and build arguments that it names are there."""
    words = shlex.split(line)
    for name in re.findall(r"-f (\S+)", line):
        assert (ROOT / name).is_file(), line
    if "compose" in words:
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        assert words[-1] in services, line
    else:
        (benchmark,) = re.findall(r"--build-arg BENCHMARK=(\w+)", line)
        assert (ROOT / "benchmarks" / benchmark / "requirements.lock").is_file(), line


def with_help(line: str) -> None:
    run(f"{line} --help")


def one_case(line: str) -> None:
    run(f"{line} --area sampling -k filtering")


def nothing(line: str) -> None:
    """There is nothing to try."""


# --- the table of exceptions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    pattern: str
    how: Callable[[str], None]
    reason: str

    def applies(self, line: str) -> bool:
        return re.match(self.pattern, line) is not None


RULES = [
    Rule(r"make ", make_target, "installs, trains or runs these tests"),
    Rule(r"\. \.venv/bin/activate$", nothing, "the tests run inside it"),
    Rule(r"harness assets pull ", read, "downloads"),
    Rule(r"harness assets import geneval", read, "the real file has a digest"),
    Rule(r"harness prepare ", read, "builds environments or images"),
    Rule(r"harness check adm --full", read, "12 GB of files from outside"),
    Rule(r"harness check .*--against ", read, "draws again; tests/harness/reproduce does it"),
    Rule(r"harness compare \S+,", read, "needs runs of several seeds; tests/harness/reproduce has them"),
    Rule(r"harness check ", plan, "builds an environment of TensorFlow or of mmdet; the slow test does the first"),
    Rule(r"harness (run|score) .*--runtime (docker|podman)", read, "needs a container engine"),
    Rule(r"harness (run|score) ", plan, "needs files from outside; the slow test scores with the shipped small ones"),
    Rule(r"gear train ", read, "trains for minutes; the slow test shortens the stages"),
    Rule(r"gear reconstruct digits", read, "makes the digits first; the slow test does it"),
    Rule(r"python -m gear\.training\.launch ", read, "trains on eight GPUs"),
    Rule(r"torchrun ", read, "draws on eight GPUs"),
    Rule(r"sbatch ", batch_job, "needs Slurm; tests/gear/training/test_slurm.py runs the script"),
    Rule(r"([A-Z0-9_]+=\S+ )+scripts/(train|eval)/", dry_run, "trains on ImageNet, or scores; tests/scripts runs them"),
    Rule(r"([A-Z_]+=\S+ )*docker ", containers, "needs a container engine; .ci/run builds and runs the images"),
    Rule(r"python -m tests\.conformance ", one_case, "minutes; tests/test_conformance.py runs all cases"),
    Rule(r"python scripts/bench\.py ", with_help, "measures for minutes"),
]


@pytest.fixture(scope="module", autouse=True)
def folder(world: Path) -> Path:
    return world


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work(page: Path, monkeypatch: pytest.MonkeyPatch):
    for line in commands(page):
        if exported := re.fullmatch(r"export (\w+)=(\S+)", line):
            monkeypatch.setenv(exported[1], exported[2].replace("$PWD", str(Path.cwd())))
        else:
            next((rule.how for rule in RULES if rule.applies(line)), run)(line)


def test_every_exception_is_needed():
    lines = [line for page in FOLLOWED for line in commands(page)]
    unused = [rule.pattern for rule in RULES if not any(rule.applies(line) for line in lines)]
    assert not unused, unused


SHORTENED = {
    "gear train tokenizer": "--set stages.tokenizer.steps=2",
    "gear train e2e": "--set stages.e2e.steps=1",
    "gear train ar": "--set stages.ar.steps=1",
    "gear train t2i": "--set stages.t2i.steps=1",
    "gear sample --ckpt exps/ar --per-class": "--limit 10",
    "gear reconstruct digits": "--limit 4",
}


@pytest.mark.slow
def test_the_training_of_the_page_runs_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All stages on the demo's digits, each from the run before, then drawing and reconstructing."""
    monkeypatch.chdir(tmp_path)
    for line in commands(ROOT / "docs/train-gear.md")[:7]:
        words = next((more for start, more in SHORTENED.items() if re.sub(" +", " ", line).startswith(start)), "")
        run(f"{line} {words}")
    assert (tmp_path / "exps/t2i/model.pt").is_file() and (tmp_path / "exps/recon/metrics.json").is_file()


@pytest.mark.slow
def test_the_first_evaluation_runs_with_the_shipped_case_of_adm(world: Path, monkeypatch: pytest.MonkeyPatch):
    """Gold check, score, compare and export in adm's own environment, on its small graph and reference."""
    from tests.docs.small_adm import real_environments, shipped_samples

    monkeypatch.setenv("HARNESS_HOME", str(real_environments(world)))
    shipped_samples(world)
    wanted = r"harness (check adm|score adm --samples (samples|other)\.npz --name|show|report|compare|export)"
    for line in commands(ROOT / "docs/first-evaluation.md"):
        if re.match(wanted, line):
            run(f"{line} --runs adm-runs")
    text = (world / "scores.csv").read_text()
    assert "gfid" in text and "first" in text and "second" in text
