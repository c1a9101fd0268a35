"""How the judge is reached. It changes no score, so it is in the environment and not among the options:

HARNESS_JUDGE_URL           the server, e.g. http://127.0.0.1:8000/v1
HARNESS_JUDGE_API_KEY       sent as a bearer token; never written anywhere, also where a server repeats it
HARNESS_JUDGE_CONCURRENCY   questions in flight [16]
HARNESS_JUDGE_TIMEOUT_S     for one whole answer [300]
HARNESS_JUDGE_RETRIES       after a failed connection or a status that says "later" [5]
HARNESS_JUDGE_BACKOFF_S     before the first of them; doubled each time [1]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from harness.contract.errors import UserError
from harness.contract.fields import Within, build

_NUMBERS = ("concurrency", "timeout_s", "retries", "backoff_s")
_SHORTEST_SECRET = 5
"""A shorter key ("1", "none") protects nothing, and replacing it would spoil the replies that are kept."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How the judge is reached; changes no score."""

    url: str
    api_key: str = field(default="", repr=False)
    concurrency: Annotated[int, Within(1, 1025)] = 16
    timeout_s: Annotated[float, Within(0.001, 1e6)] = 300.0
    retries: Annotated[int, Within(0, 101)] = 5
    backoff_s: Annotated[float, Within(0, 3601)] = 1.0

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Connection:
        """Read `HARNESS_JUDGE_*`.

        Raises:
            UserError: the address is missing or no address, the key can be none, or a value is not a number.
        """
        given = {name: _number(variables.get(f"HARNESS_JUDGE_{name.upper()}", "")) for name in _NUMBERS}
        values = {name: value for name, value in given.items() if value is not None}
        url, key = _address(variables.get("HARNESS_JUDGE_URL", "")), _key(variables.get("HARNESS_JUDGE_API_KEY", ""))
        return build(cls, {"url": url, "api_key": key, **values}, "HARNESS_JUDGE_*")

    def conceal(self, text: str) -> str:
        """`text` without the key, which a server may repeat in what it says."""
        return text.replace(self.api_key, "[the key]") if len(self.api_key) >= _SHORTEST_SECRET else text


def _number(text: str) -> Any:
    """A number as typed; other text as it is, to be refused by name; None when there is nothing."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip() or None


def _address(text: str) -> str:
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"HARNESS_JUDGE_URL is {text!r}; give the address of an OpenAI-compatible server with the judge, as in "
            "http://127.0.0.1:8000/v1, or let compose start one: docker compose run --rm wise"
        )
    if parts.username or parts.password:
        raise UserError("HARNESS_JUDGE_URL holds a user or a password; give the key in HARNESS_JUDGE_API_KEY instead.")
    return text.strip().rstrip("/")


def _key(text: str) -> str:
    if not all("!" <= letter <= "~" for letter in text.strip()):
        raise UserError("HARNESS_JUDGE_API_KEY has a space or a letter that no key has; copy the key again.")
    return text.strip()
