"""How the judge is reached. It changes no score, so it is in the environment and not among the options:

HARNESS_JUDGE_URL           the server, e.g. http://127.0.0.1:8000/v1
HARNESS_JUDGE_API_KEY       sent as a bearer token; never written anywhere
HARNESS_JUDGE_CONCURRENCY   questions in flight [16]
HARNESS_JUDGE_TIMEOUT_S     for one answer [300]
HARNESS_JUDGE_RETRIES       after a failed connection or a status that says "later" [5]
HARNESS_JUDGE_BACKOFF_S     before the first of them; doubled each time [1]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How the judge is reached; changes no score."""

    url: str
    api_key: str = ""
    concurrency: int = 16
    timeout_s: float = 300.0
    retries: int = 5
    backoff_s: float = 1.0

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Connection:
        """Read `HARNESS_JUDGE_*`.

        Raises:
            UserError: the address is missing, or a value is not a number.
        """
        url = variables.get("HARNESS_JUDGE_URL", "").rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"HARNESS_JUDGE_URL is {url!r}; give the address of an OpenAI-compatible server with the judge, as in "
                "http://127.0.0.1:8000/v1, or let compose start one: docker compose run --rm wise"
            )
        try:
            return cls(
                url=url,
                api_key=variables.get("HARNESS_JUDGE_API_KEY", ""),
                concurrency=max(1, int(variables.get("HARNESS_JUDGE_CONCURRENCY", cls.concurrency))),
                timeout_s=float(variables.get("HARNESS_JUDGE_TIMEOUT_S", cls.timeout_s)),
                retries=max(0, int(variables.get("HARNESS_JUDGE_RETRIES", cls.retries))),
                backoff_s=float(variables.get("HARNESS_JUDGE_BACKOFF_S", cls.backoff_s)),
            )
        except ValueError as error:
            raise UserError(f"HARNESS_JUDGE_*: {error}; give numbers.") from error
