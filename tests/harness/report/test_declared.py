from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from harness.catalog.benchmarks import Benchmark, ScorerSpec
from harness.contract.requests import SamplingProtocol
from harness.report.declared import published_by, withheld_by


def make_benchmark(*published: Mapping[str, Any]) -> Benchmark:
    return Benchmark(
        id="demo",
        version=1,
        title="",
        summary="",
        suites=(),
        condition="class",
        requests={},
        protocol=SamplingProtocol(image_size=16),
        form="npz",
        scorer=ScorerSpec(script="scorer.py", image="demo"),
        published=published,
    )


def test_of_an_unknown_benchmark_nothing_is_published() -> None:
    assert published_by(None, {}) == () and withheld_by(None, {}) == ""


@pytest.mark.parametrize(
    ("protocol", "text"), [("cfg 1.0", "cfg 1.0"), ({"cfg": 1.5, "n": 50}, "cfg 1.5, n 50"), (None, "")]
)
def test_a_published_protocol_may_be_text_or_settings(protocol: object, text: str) -> None:
    entry = {"model": "M", "protocol": protocol, "metrics": {"a": 1.5}}
    (published,) = published_by(make_benchmark(entry), {})
    assert (published.model, published.source, published.protocol) == ("M", "", text)
    assert published.metrics == {"a": 1.5}


def test_values_measured_with_other_options_are_left_out_and_it_is_said() -> None:
    benchmark = make_benchmark(
        {"model": "A", "metrics": {"a": 1.5}, "options": {"wording": "published", "prompt": None}},
        {"model": "B", "metrics": {"a": 2.5}},
    )
    same = {"wording": "published", "prompt": None, "more": 1}
    assert [row.model for row in published_by(benchmark, same)] == ["A", "B"] and withheld_by(benchmark, same) == ""
    for other in ({**same, "wording": "own"}, {"prompt": None}, {}):
        assert [row.model for row in published_by(benchmark, other)] == ["B"]
        assert "not measured with wording published" in withheld_by(benchmark, other)
    assert withheld_by(benchmark, {**same, "prompt": "x"}).endswith("not measured with prompt None.")
