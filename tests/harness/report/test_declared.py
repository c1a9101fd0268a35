from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.catalog.benchmarks import Benchmark, MetricSpec, ScorerSpec
from harness.contract.record import Metric, ScoreRecord
from harness.contract.requests import Protocol
from harness.report.declared import labelled, published_by

MakeRecord = Callable[..., ScoreRecord]


def make_benchmark(*metrics: MetricSpec, published: tuple[Mapping[str, Any], ...] = ()) -> Benchmark:
    return Benchmark(
        id="demo",
        version=1,
        title="",
        summary="",
        suites=(),
        condition="class",
        requests={},
        protocol=Protocol(image_size=16),
        form="npz",
        scorer=ScorerSpec(script="scorer.py", image="demo"),
        metrics=metrics,
        published=published,
    )


def test_labels_and_units_are_filled_in_not_replaced(make_record: MakeRecord, metric: Callable[..., Metric]) -> None:
    specs = [MetricSpec(name=name, label=name.upper(), higher_is_better=True, unit="dB") for name in ("a", "b")]
    record = make_record(("a", 1.0, True), metric("b", 2.0, True, label="Bee", unit="%"), ("c", 3.0, True))
    filled = labelled(record, make_benchmark(*specs))
    assert [(m.label, m.unit) for m in filled.metrics] == [("A", "dB"), ("Bee", "%"), (None, "")]


def test_a_score_of_an_unknown_benchmark_stays_as_it_is(make_record: MakeRecord) -> None:
    record = make_record(("a", 1.0, True))
    assert labelled(record, None) == record
    assert published_by(None) == ()


@pytest.mark.parametrize(
    ("protocol", "text"), [("cfg 1.0", "cfg 1.0"), ({"cfg": 1.5, "n": 50}, "cfg 1.5, n 50"), (None, "")]
)
def test_a_published_protocol_may_be_text_or_settings(protocol: object, text: str) -> None:
    entry = {"model": "M", "protocol": protocol, "metrics": {"a": 1.5}}
    (published,) = published_by(make_benchmark(published=(entry,)))
    assert (published.model, published.source, published.protocol) == ("M", "", text)
    assert published.metrics == {"a": 1.5}
