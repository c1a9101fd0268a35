"""Made-up records, logs and pictures, and a reader that says what a page holds and what it would load."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract.record import Metric, ScoreRecord

LOADING = {"src", "href", "data", "action", "poster", "srcset", "background", "formaction", "cite", "ping"}


class Page(HTMLParser):
    """A parsed page: its tags, its visible text, its ids, and every address in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in LOADING or name.endswith(":href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.text += data


@pytest.fixture
def read_page() -> Callable[[str], Page]:
    return Page


@pytest.fixture
def make_record() -> Callable[..., ScoreRecord]:
    def make(
        *metrics: tuple[str, float | None, bool] | Metric, benchmark: str = "demo", version: int = 1, **rest: Any
    ) -> ScoreRecord:
        whole = [m if isinstance(m, Metric) else make_metric(*m) for m in metrics]
        return ScoreRecord(benchmark=benchmark, benchmark_version=version, metrics=whole, **rest)

    return make


def make_metric(name: str, value: float | None, higher_is_better: bool, n: int = 2000, **rest: Any) -> Metric:
    return Metric(name=name, value=value, higher_is_better=higher_is_better, n=n, **rest)


@pytest.fixture
def metric() -> Callable[..., Metric]:
    return make_metric


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """A training log: entries as JSON lines, then `torn` without a line end."""

    def write(entries: Sequence[Mapping[str, Any]], torn: str = "", name: str = "log.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + torn)
        return path

    return write


@pytest.fixture
def falling_log(write_log: Callable[..., Path]) -> Callable[..., Path]:
    """A log whose next-token loss falls from 6 to 3, `speed` times as fast as e^(-step/100)."""

    def write(name: str, speed: float, num_steps: int = 400) -> Path:
        noise = np.random.default_rng(0).standard_normal(num_steps)
        entries = [
            {"step": s + 1, "phase": "e2e", "ce_loss": 3 + 3 * math.exp(-speed * s / 100) + 0.05 * noise[s]}
            for s in range(num_steps)
        ]
        return write_log(entries, name=name)

    return write


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    def make(count: int, size: int = 16) -> np.ndarray:
        return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    return make
