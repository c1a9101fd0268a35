"""The metrics of dpg; it has no options."""

from __future__ import annotations

from harness.contract.interface import MetricSpec, ScorerOptions

Options = ScorerOptions

METRICS = (
    MetricSpec("dpg", "DPG-Bench", higher_is_better=True),
    MetricSpec("dpg_corrected", "DPG-Bench, corrected", higher_is_better=True),
    MetricSpec("category_score", "Answered yes, by broad category", higher_is_better=True, unit="%"),
    MetricSpec("detail_score", "Answered yes, by detailed category", higher_is_better=True, unit="%"),
)
