"""The judge beside the scorer: `serve.py` starts a server like vLLM's, waits until it can see, and is ended with it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.contract.record import ScoreRecord

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "benchmarks/wise/check/samples"
ASSETS = ROOT / "benchmarks/wise/check/assets"

PROGRAM = """
    #!{python}
    # Takes the command line of `vllm serve`. Like vLLM's, it is up long before it can see.
    import argparse, json, os, sys, time
    from pathlib import Path

    sys.path.insert(0, {root!r})
    from benchmarks.wise import replay

    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    arguments, flags = parser.parse_known_args()
    starts = arguments.model / "starts.jsonl"
    started = len(starts.read_text().splitlines()) if starts.exists() else 0
    with starts.open("a") as notes:
        print(json.dumps({{"pid": os.getpid(), "name": arguments.served_model_name, "flags": flags,
            "sockets": os.environ["VLLM_RPC_BASE_PATH"]}}), file=notes)
    if (arguments.model / "blind").exists():
        print("no kernel image is available")
        sys.exit(1)

    class Judge(replay.ReplayServer):
        def next_line(self, question):
            with self.lock:
                self.asked["all"] = self.asked.get("all", 0) + 1
            if self.asked["all"] <= 1:
                return replay.Line(status=500)
            with (arguments.model / "asked.txt").open("a") as notes:
                print("colour" if "Which colour" in question else "case", file=notes)
            return replay.Line(text="Score: 1", delay_s=float(os.environ.get("HARNESS_JUDGE_NAP", 0)))

    Judge({{}}, arguments.served_model_name, (arguments.host, arguments.port)).serve_forever()
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is served; beside it the program that serves it."""
    program = tmp_path / "vllm"
    program.write_text(textwrap.dedent(PROGRAM).lstrip().format(python=sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    monkeypatch.setenv("HARNESS_JUDGE_PROGRAM", str(program))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, value in {"CONCURRENCY": "2", "RETRIES": "1", "BACKOFF_S": "0.1"}.items():
        monkeypatch.setenv(f"HARNESS_JUDGE_{name}", value)
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def start(model: Path, options: Mapping[str, object]) -> subprocess.Popen[str]:
    given = model.parent / "options.json"
    given.write_text(json.dumps(options))
    serve = [sys.executable, ROOT / "benchmarks/wise/serve.py", "--model", model, "--options", given]
    score = [sys.executable, ROOT / "benchmarks/wise/scorer.py", "--samples", SAMPLES, "--assets", ASSETS]
    score += ["--out", model.parent / "out", "--options", given]
    beside = [sys.executable, "-m", "harness.scoring.with_service", "HARNESS_JUDGE_URL"]
    argv = [str(word) for word in [*beside, *serve, "---", *score]]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def starts(model: Path) -> list[dict[str, object]]:
    notes = model / "starts.jsonl"
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_gone(pid: object) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_the_judge_is_asked_about_a_picture_before_the_scorer_and_ended_after_it(model: Path) -> None:
    ran = start(model, {"judge": "Seven-7B", "disable_thinking": False})
    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 0, said
    (begun,) = starts(model)
    assert begun["name"] == "Seven-7B" and "--moe-backend" in begun["flags"]  # type: ignore[operator]
    assert is_gone(begun["pid"])
    sockets = Path(str(begun["sockets"]))
    assert len(str(sockets)) < 40 and not sockets.exists()
    asked = (model / "asked.txt").read_text().split()
    assert asked == ["colour"] + ["case"] * 10
    record = ScoreRecord.read(model.parent / "out")
    assert record.metric("wiscore").value == pytest.approx(1.0) and record.environment["judge"]["id"] == "Seven-7B"
    assert f"service: $ {os.environ['HARNESS_JUDGE_PROGRAM']} serve {model}" in said


def test_a_judge_that_is_killed_in_the_middle_is_started_again_and_no_answer_is_lost(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_JUDGE_NAP", "0.4")
    ran = start(model, {"judge": "Seven-7B"})
    journal = model.parent / "out" / "answers.jsonl"
    wait_for(lambda: journal.exists() and len(journal.read_text().splitlines()) > 3)
    os.kill(int(str(starts(model)[0]["pid"])), signal.SIGKILL)
    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 0, said
    assert len(starts(model)) == 2 and "it is started again." in said
    assert ScoreRecord.read(model.parent / "out").metric("wiscore").n == 10
    assert (model / "asked.txt").read_text().split().count("case") <= 10 + 2  # those in flight


def test_a_judge_that_never_sees_ends_with_the_environments_status_and_its_own_words(model: Path) -> None:
    (model / "blind").touch()
    ran = start(model, {"judge": "Seven-7B"})
    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 6 and len(starts(model)) == 2
    assert "service: no kernel image is available" in said
    assert "run the same command again" in said.splitlines()[-1]


def test_a_program_that_is_not_there_is_named_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_JUDGE_PROGRAM", str(model))
    ran = start(model, {"judge": "Seven-7B"})
    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 2 and said.count(f"UserError: {model}: is no program") == 1


def test_flags_of_ones_own_take_the_place_of_the_protocols(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_JUDGE_FLAGS", shlex.join(["--limit-mm-per-prompt", '{"image": 1}']))
    ran = start(model, {"judge": "Seven-7B"})
    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 0, said
    assert starts(model)[0]["flags"] == ["--limit-mm-per-prompt", '{"image": 1}']
