"""The harness: plans, runs, records and compares benchmarks of image generators.

    import harness

    record = harness.score("adm", "samples.npz")
    print(record.metric("gfid").value, record.metric("gfid").n)

`harness.score`, `harness.run` and `harness.plan` are documented in `harness.api`; the file formats in
`harness.contract`. Nothing is imported before it is used; `__init__.pyi` lists the names (as in SPEC 1).
"""

import importlib

__version__ = "0.1.0"
_API = ("GoldCheck", "Plan", "Run", "check", "list_runs", "load_run", "plan", "prepare", "run", "score")
_ERRORS = ("BadSamples", "EnvironmentFailure", "MissingAsset", "RunFailed", "UserError")
_HOMES = {
    **dict.fromkeys((*_API, *_ERRORS), "harness.api"),
    **dict.fromkeys(("Metric", "ScoreRecord"), "harness.contract.record"),
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return __all__
