"""The options and metrics of wise and wise_legacy. How the judge is reached changes no score: see `connection.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
    """The model, by the name under which the server has it."""
    judge_revision: Text | None = None
    """Which weights exactly: a commit or a digest. The server does not say it, so the user has to."""
    temperature: Annotated[float, Within(0)] = 0.0
    """Of the judge's replies; 0 takes the likeliest words."""
    max_tokens: Annotated[int, Within(1)] = 500
    """Of one reply, at most."""
    attempts: Annotated[int, Within(1)] = 3
    """Times an image is asked about until the reply can be read."""
    repeats: Annotated[int, Within(1)] = 1
    """Rounds over all images; with several, the spread of the overall score is reported."""
    disable_thinking: bool = True
    """Send `chat_template_kwargs: {enable_thinking: false}`, which vLLM understands and others may refuse."""
    system_prompt: Text | None = None
    """Another wording of the judge's role."""
    user_prompt: Text | None = None
    """Another wording of its task, with {prompt} and {explanation}."""

    def __post_init__(self) -> None:
        for place in ("{prompt}", "{explanation}"):
            if self.user_prompt is not None and place not in self.user_prompt:
                raise ValueError(f"user_prompt has no {place}, so the judge would not know what to look for")
