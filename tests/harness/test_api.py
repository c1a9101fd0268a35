"""The Python API: typed scores, the command line's errors, and nothing computed twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness


@pytest.fixture
def samples(toy) -> Path:
    path = toy.root / "samples.npz"
    np.savez(path, arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    return path


def assets(toy) -> dict[str, Path]:
    return {"toy-reference": toy.reference}


def test_samples_are_scored_and_the_score_says_where_it_comes_from(toy, samples):
    record = harness.score("toy", samples, options={"scale": 2.0}, assets=assets(toy))
    assert isinstance(record, harness.ScoreRecord)
    metric = record.metric("brightness")
    assert (metric.value, metric.n, metric.higher_is_better) == (14.0, 5, True)
    assert len(record.digests["samples"]) == 64 and record.options["scale"] == 2.0


def test_the_same_call_again_computes_nothing(toy, samples):
    first = harness.run("toy", samples=samples, assets=assets(toy))
    again = harness.run("toy", samples=samples, assets=assets(toy))
    assert {step.status for step in first.record.steps} == {"run"}
    assert {step.status for step in again.record.steps} == {"cached"}
    assert again.folder == first.folder == toy.runs_dir / first.record.run
    assert again.scores["toy"] == first.scores["toy"]


def test_a_generator_draws_and_is_scored(toy):
    line = f"{sys.executable} {toy.generator}"
    run = harness.run("toy", generator=line, limit=4, options={"toy": {"scale": 1.0}}, assets=assets(toy))
    assert run.scores["toy"].metric("brightness").n == 4
    assert run.record.generator["kind"] == "command"


def test_a_plan_runs_nothing(toy, samples):
    plan = harness.plan("toy", samples=samples)
    assert [step.name for step in plan.steps] == ["samples", "score-toy"]
    assert not toy.runs_dir.exists()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda toy: harness.score("tyo", "x.npz"), harness.UserError, "did you mean toy"),
        (lambda toy: harness.score("toy", "x.npz"), harness.UserError, r"x\.npz: does not exist"),
        (lambda toy: harness.score("toy", "samples.npz"), harness.MissingAsset, "toy-reference"),
        (lambda toy: harness.run("toy"), harness.UserError, "No generator is named"),
        (lambda toy: harness.run("toy", samples="samples.npz", runtime="rocket"), harness.UserError, "rocket"),
        (lambda toy: harness.plan("toy", samples="samples.npz", limit=3), harness.UserError, "--limit"),
    ],
)
def test_mistakes_raise_what_the_command_line_prints(toy, samples, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(toy)


def test_a_failed_step_is_an_error_with_its_log_and_the_exit_status_of_the_command_line(toy, samples):
    toy.edit("benchmarks/toy/scorer.py", 'print("scored", len(values))', 'raise SystemExit("no more paint")')
    with pytest.raises(harness.RunFailed, match="no more paint") as caught:
        harness.score("toy", samples, assets=assets(toy))
    assert caught.value.exit_code == 1


def test_samples_that_cannot_be_scored_raise_their_status(toy):
    (toy.root / "bad.npz").write_bytes(b"not an archive")
    with pytest.raises(harness.UserError) as caught:
        harness.score("toy", "bad.npz", assets=assets(toy))
    assert caught.value.exit_code == harness.BadSamples.exit_code


def test_items_without_a_score_are_in_the_record(toy, samples):
    record = harness.score("toy", samples, options={"refuse": 2}, assets=assets(toy))
    assert [item.reason_class for item in record.unscored] == ["whim", "whim"]


def test_progress_is_shown_on_request(toy, samples, capfd):
    harness.score("toy", samples, assets=assets(toy))
    assert capfd.readouterr() == ("", "")
    harness.score("toy", samples, assets=assets(toy), force=True, progress=True)
    printed = capfd.readouterr()
    assert printed.out == "" and "score-toy" in printed.err


def test_importing_the_harness_imports_none_of_its_parts():
    code = "import sys, harness; print([name for name in sys.modules if name.startswith(('harness.', 'numpy'))])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def test_every_public_name_exists_and_has_a_docstring():
    assert all(getattr(harness, name).__doc__ for name in harness.__all__ if name != "__version__")


def test_a_gold_check_says_whether_the_known_answer_came_out(toy):
    assert harness.check("toy").passed
    toy.edit("benchmarks/toy/benchmark.yaml", "value: 20.0", "value: 21.0")
    checked = harness.check("toy")
    assert not checked.passed and [row.error for row in checked.comparisons] == [1.0]
