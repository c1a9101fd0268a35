"""The values that others published, as benchmark.yaml lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.catalog.benchmarks import has_options
from harness.report.formats import in_words
from harness.report.sections import Published

if TYPE_CHECKING:
    from harness.catalog.benchmarks import Benchmark


def published_by(benchmark: Benchmark | None, options: Mapping[str, Any]) -> tuple[Published, ...]:
    """The published values that benchmark.yaml lists, but for those that were measured with other options."""
    entries = benchmark.published if benchmark else ()
    return tuple(
        Published(
            model=str(entry.get("model", "")),
            source=str(entry.get("source", "")),
            protocol=_protocol_text(entry.get("protocol", "")),
            metrics=dict(entry.get("metrics", {})),
        )
        for entry in entries
        if has_options(options, entry.get("options", {}))
    )


def withheld_by(benchmark: Benchmark | None, options: Mapping[str, Any]) -> str:
    """A sentence about the published values that do not compare with a score of these options; "" if all do."""
    wanted = [pair for entry in benchmark.published for pair in entry.get("options", {}).items()] if benchmark else []
    others = dict.fromkeys(f"{name} {value}" for name, value in wanted if not has_options(options, {name: value}))
    if not others:
        return ""
    return f"Published values are left out, because this score was not measured with {in_words(list(others))}."


def _protocol_text(protocol: Any) -> str:
    if isinstance(protocol, Mapping):
        return ", ".join(f"{name} {value}" for name, value in protocol.items())
    return str(protocol or "")
