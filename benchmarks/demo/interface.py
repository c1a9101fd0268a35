"""The metrics of demo; it has no options.

No metric is called FID: the features are another network's, and the numbers are comparable only with this demo.
"""

from __future__ import annotations

from harness.contract.interface import MetricSpec, ScorerOptions

Options = ScorerOptions

METRICS = (
    MetricSpec("fd_lite0", "FD-Lite0", higher_is_better=False),
    MetricSpec("precision_lite0", "Precision (Lite0)", higher_is_better=True),
    MetricSpec("recall_lite0", "Recall (Lite0)", higher_is_better=True),
    MetricSpec("density_lite0", "Density (Lite0)", higher_is_better=True),
    MetricSpec("coverage_lite0", "Coverage (Lite0)", higher_is_better=True),
    MetricSpec("class_accuracy", "Class accuracy", higher_is_better=True),
    MetricSpec("fd_lite0_real", "FD-Lite0 of real digits", higher_is_better=False),
    MetricSpec("class_accuracy_real", "Class accuracy on real digits", higher_is_better=True),
)
