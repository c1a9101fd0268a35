"""The options and metrics of wise and wise_legacy. How the judge is reached changes no score: see `connection.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, NotBlank, ScorerOptions

METRICS = (
    MetricSpec("wiscore", "WiScore", higher_is_better=True),
    MetricSpec("category_score", "Mean of the category", higher_is_better=True),
    MetricSpec("wiscore_lowest", "WiScore, lowest round", higher_is_better=True),
    MetricSpec("wiscore_highest", "WiScore, highest round", higher_is_better=True),
)

Text = Annotated[str, NotBlank()]


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """What `--set wise.NAME=VALUE` may change; part of the score's key."""

    judge: Text = "Qwen3.5-35B-A3B"
    """The model, by the name under which it is served."""
    judge_revision: Text | None = None
    """Which weights exactly: a commit or a digest. The server does not report it, so the user states it."""
    wording: Literal["published", "own"] = "published"
    """What the judge is told: the text of the published program, which leaderboards use, or this project's own."""
    temperature: Annotated[float, Within(0)] = 0.0
    """Sampling temperature of the judge; 0 takes the likeliest tokens."""
    max_tokens: Annotated[int, Within(1)] = 500
    """Maximum length of one reply."""
    attempts: Annotated[int, Within(1)] = 3
    """Attempts per image until a reply can be read."""
    repeats: Annotated[int, Within(1)] = 1
    """Rounds over all images; with several, the spread of the overall score is reported."""
    disable_thinking: bool = True
    """Send `chat_template_kwargs: {enable_thinking: false}`, which vLLM supports and other servers may refuse."""
    system_prompt: Text | None = None
    """Replaces the text of the judge's role."""
    user_prompt: Text | None = None
    """Replaces the text of its task; contains {prompt} and {explanation}."""

    def __post_init__(self) -> None:
        for place in ("{prompt}", "{explanation}"):
            if self.user_prompt is not None and place not in self.user_prompt:
                raise ValueError(f"user_prompt has no {place}, so the judge would not see it; add it")
