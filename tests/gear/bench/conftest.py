"""Training logs for the demo's report, made up as for the harness's."""

from tests.harness.report.conftest import falling_log, write_log

__all__ = ["falling_log", "write_log"]
