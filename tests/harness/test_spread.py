from __future__ import annotations

import numpy as np
from click.testing import CliRunner

from harness.cli import main
from harness.contract.record import Metric, ScoreRecord
from harness.spread import spreads


def record(**values: float | None) -> ScoreRecord:
    metrics = [Metric(name=name, value=value, higher_is_better=True, n=1) for name, value in values.items()]
    return ScoreRecord(benchmark="toy", benchmark_version=1, metrics=metrics)


def test_metrics_that_all_sets_have_get_mean_and_deviation() -> None:
    found = spreads([record(a=1.0, b=None, c=1.0), record(a=3.0, b=1.0)])
    assert [(row.metric.name, row.spread.mean, row.spread.n) for row in found] == [("a", 2.0, 2)]
    assert found[0].spread.std == np.std([1.0, 3.0], ddof=1)


def test_several_sample_sets_are_scored_one_by_one_and_their_spread_printed(toy, monkeypatch) -> None:
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(toy.root / "benchmarks"))
    monkeypatch.setenv("HARNESS_HOME", str(toy.home))
    words = ["score", "toy", "--runs", str(toy.runs_dir), "--asset", f"toy-reference={toy.reference}"]
    for level in (10, 30):
        path = toy.root / f"level{level}.npz"
        generator = np.random.default_rng(level)
        np.savez(path, arr_0=(level + generator.integers(0, 2, (12, 8, 8, 3))).astype(np.uint8))
        words += ["--samples", str(path)]
    outcome = CliRunner().invoke(main, words)
    assert outcome.exit_code == 0, outcome.output
    last = outcome.output.strip().splitlines()[-1]
    assert last.split()[-1] == "2" and ".." in last
