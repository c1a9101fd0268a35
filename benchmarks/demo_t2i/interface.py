"""The metrics of demo_t2i; it has no options."""

from __future__ import annotations

from harness.contract.interface import MetricSpec, ScorerOptions

Options = ScorerOptions

METRICS = (
    MetricSpec("demo_t2i", "Mean over tasks", higher_is_better=True),
    MetricSpec("task_score", "Share of right images", higher_is_better=True),
    MetricSpec("digit_accuracy", "Right digit", higher_is_better=True),
    MetricSpec("colour_accuracy", "Right colour", higher_is_better=True),
    MetricSpec("correct_prompts", "Prompts with a right image", higher_is_better=True),
    MetricSpec("real_digits", "Right on real digits", higher_is_better=True),
)
