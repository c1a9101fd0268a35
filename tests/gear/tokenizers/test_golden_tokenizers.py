"""The golden cases of the area `tokenizers` that the repository carries; the conformance command runs the full set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.area_tokenizers import AREA, run

CASES = sorted((Path(__file__).parents[2] / "golden" / AREA).glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_case_is_met(path):
    results = run(path)
    assert results
    assert not [result for result in results if not result.passed]
