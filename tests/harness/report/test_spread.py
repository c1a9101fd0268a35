from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.contract.errors import UserError
from harness.contract.record import Metric, ScoreRecord
from harness.report.spread import spreads


def record(n: int = 1000, samples: str = "", **values: float | None) -> ScoreRecord:
    metrics = [Metric(name=name, value=value, higher_is_better=True, n=n) for name, value in values.items()]
    digests = {"samples": samples} if samples else {}
    return ScoreRecord(benchmark="toy", benchmark_version=1, metrics=metrics, digests=digests)


def test_metrics_that_all_sets_have_get_mean_and_deviation() -> None:
    found = spreads([record(a=1.0, b=None, c=1.0), record(a=3.0, b=1.0)])
    assert [(row.metric.name, row.spread and (row.spread.mean, row.spread.n)) for row in found] == [
        ("a", (2.0, 2)),
        ("b", None),
        ("c", None),
    ]
    assert found[0].spread and found[0].spread.std == np.std([1.0, 3.0], ddof=1)


def test_sets_of_different_sizes_have_no_mean() -> None:
    (row,) = spreads([record(n=50_000, fid=3.0), record(n=500, fid=40.0)])
    assert row.spread is None and "different numbers of items" in row.obstacle
    (row,) = spreads([record(n=1000, score=0.5), record(n=998, score=0.7)])  # a few could not be scored
    assert row.spread is not None


def test_the_same_samples_twice_have_no_spread() -> None:
    with pytest.raises(UserError, match="hold the same images"):
        spreads([record(samples="a", fid=3.0), record(samples="b", fid=3.1), record(samples="a", fid=3.0)])


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


def test_a_set_that_is_given_twice_is_refused(toy) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(toy.root / name, arr_0=np.full((12, 8, 8, 3), 7, np.uint8))
    words = ["score", "toy", "--samples", "a.npz", "--samples", "b.npz", "--asset", f"toy-reference={toy.reference}"]
    outcome = CliRunner().invoke(main, words)
    assert outcome.exit_code == 2 and "hold the same images" in outcome.output
