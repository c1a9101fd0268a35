"""What the benchmarks measure with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

MIB = 1 << 20


def prepared(count: int) -> Callable[[], np.ndarray]:
    return partial(np.ones, count * MIB, dtype=np.uint8)


def test_the_memory_of_a_call_is_its_own_whatever_the_benchmark_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    from benches.measure import peak_growth_mib

    held = np.ones(1024 * MIB, dtype=np.uint8)
    assert peak_growth_mib(partial(prepared, 100)) == pytest.approx(100, abs=5)
    assert held[-1] == 1
