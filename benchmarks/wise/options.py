"""The settings of the judge: those that can change a score are options, the rest is in the environment.

HARNESS_JUDGE_URL           the server, e.g. http://127.0.0.1:8000/v1
HARNESS_JUDGE_API_KEY       sent as a bearer token; never written anywhere
HARNESS_JUDGE_CONCURRENCY   questions in flight [16]
HARNESS_JUDGE_TIMEOUT_S     for one answer [300]
HARNESS_JUDGE_RETRIES       after a failed connection or a status that says "later" [5]
HARNESS_JUDGE_BACKOFF_S     before the first of them; doubled each time [1]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.contract.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `--set wise.NAME=VALUE` may change; part of the score's key."""

    judge: str = "Qwen3.5-35B-A3B"
    """The model, by the name under which the server has it."""
    judge_revision: str | None = None
    """Which weights exactly: a commit or a digest. The server does not say it, so the user has to."""
    temperature: float = 0.0
    max_tokens: int = 500
    attempts: int = 3
    """Times an image is asked about until the reply can be read."""
    repeats: int = 1
    """Rounds over all images; with several, the spread of the overall score is reported."""
    disable_thinking: bool = True
    """Send `chat_template_kwargs: {enable_thinking: false}`, which vLLM understands and others may refuse."""
    system_prompt: str | None = None
    """Another wording of the judge's role."""
    user_prompt: str | None = None
    """Another wording of its task, with {prompt} and {explanation}."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Options:
        """Options with `values` for defaults.

        Raises:
            UserError: there is no such option, or it cannot have this value.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"wise has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}.")
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        for name in ("judge", "judge_revision", "system_prompt", "user_prompt"):
            value = getattr(self, name)
            if value is None and name != "judge":
                continue
            if not isinstance(value, str):
                raise UserError(f"wise: {name} is {value!r}, which is not text; put it in quotes within the value.")
            if not value.strip():
                raise UserError(f"wise: {name} is empty; leave it out, or give the text.")
        for name in ("max_tokens", "attempts", "repeats"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UserError(f"wise: {name} is {getattr(self, name)!r}, which is not a whole number above 0.")
        if type(self.temperature) not in (int, float) or not 0 <= self.temperature < math.inf:
            raise UserError(f"wise: temperature is {self.temperature!r}, which is not a number of at least 0.")
        if not isinstance(self.disable_thinking, bool):
            raise UserError(f"wise: disable_thinking is {self.disable_thinking!r}, which is not true or false.")
        for place in ("{prompt}", "{explanation}"):
            if self.user_prompt is not None and place not in self.user_prompt:
                raise UserError(f"wise: user_prompt has no {place}, so the judge would not know what to look for.")

    def as_mapping(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


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
            UserError: there is no address, or a number is none.
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
