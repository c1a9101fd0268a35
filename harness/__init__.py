"""The harness: plans, runs, records and compares benchmarks of image generators.

    import harness

    record = harness.score("adm", "samples.npz")
    print(record.metric("gfid").value, record.metric("gfid").n)

`harness.score`, `harness.run` and `harness.plan` are documented in `harness.api`; the file formats in
`harness.contract`. Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import Run as Run
    from harness.api import plan as plan
    from harness.api import run as run
    from harness.api import score as score
    from harness.contract.errors import BadSamples as BadSamples
    from harness.contract.errors import EnvironmentFailure as EnvironmentFailure
    from harness.contract.errors import MissingAsset as MissingAsset
    from harness.contract.errors import UserError as UserError
    from harness.contract.record import Metric as Metric
    from harness.contract.record import ScoreRecord as ScoreRecord

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Run", "plan", "run", "score"), "harness.api"),
    **dict.fromkeys(("BadSamples", "EnvironmentFailure", "MissingAsset", "UserError"), "harness.contract.errors"),
    **dict.fromkeys(("Metric", "ScoreRecord"), "harness.contract.record"),
}

__all__ = [
    "BadSamples",
    "EnvironmentFailure",
    "Metric",
    "MissingAsset",
    "Run",
    "ScoreRecord",
    "UserError",
    "__version__",
    "plan",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
