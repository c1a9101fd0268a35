"""Fixtures of the harness's tests: training logs for the demo's report, and the toy project."""

from tests.harness.conftest import toy
from tests.harness.report.conftest import falling_log, write_log

__all__ = ["falling_log", "toy", "write_log"]
