"""What a tokenizer family defines: one `Family` per file (`vq.py`, `lfq.py`, ...), listed in `gear.tokenizers`.

The second half reads sizes off the names and shapes of a state dict's tensors, which is how a family recognises its
public checkpoints. docs/add-a-tokenizer.md is the worked example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gear.keytable import Rules
from gear.tokenizers.base import Tokenizer, TokenizerConfig

State = Mapping[str, Tensor]

GEAR_ENTROPY_RATIO = 0.05
"""Weight of the entropy regulariser in every GEAR training run, whatever a family's own default. Tensors do not show
it, so configurations inferred from a checkpoint use it too."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything the rest of gear needs to know about a tokenizer family."""

    config: type[TokenizerConfig]
    """Its `family` is the name in checkpoints and YAML."""
    build: Callable[[Any], Tokenizer]
    """A freshly initialised tokenizer of such a configuration."""
    matches: Callable[[Mapping[str, object]], bool]
    """Whether a state dict's keys are this family's. If several families match, `read` must decide between them."""
    read: Callable[[State, Mapping[str, Any]], TokenizerConfig | None]
    """The configuration of a state dict that `matches`. The second argument holds the plain settings of its training
    (`args`; often empty). None: it is of another family after all. ValueError, naming the key: a size is missing."""
    keys: Rules = field(default_factory=dict)
    """Keys of its public checkpoints that are renamed or dropped, besides those of all families (`checkpoints.py`)."""
    published: Mapping[str, TokenizerConfig] = field(default_factory=dict)
    """Its published architectures by name."""
    origin: str = ""
    """The project that published checkpoints of this family, for messages."""
    recorded_sizes: tuple[str, ...] = ()
    """Settings of the reference's training (`args`) that are fields of the configuration under the same name."""
    codes_of: str = ""
    """Another family with the same kind of codes, if there is one: an AR model cannot tell the two apart."""

    @property
    def name(self) -> str:
        return self.config.family

    @property
    def code_kind(self) -> str:
        """The kind of codes: it must be the same for a tokenizer and the one that an AR model was trained with."""
        return self.codes_of or self.name


def shape_of(state: State, key: str) -> tuple[int, ...]:
    """The shape of a tensor; ValueError naming the key when it is missing."""
    if key not in state:
        raise ValueError(f"it is not of a known tokenizer family: {key} is missing")
    return tuple(state[key].shape)


def width_of(state: State, key: str) -> int:
    """Output channels of a convolution's weight."""
    return shape_of(state, key)[0]


def count_of(state: State, pattern: str) -> int:
    """How many consecutive numbers, from 0, the keys have in place of `{}` in `pattern`."""
    known = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    numbers = {int(match[1]) for key in state if (match := known.fullmatch(key))}
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


def multiples_of(state: State, pattern: str, ch: int) -> tuple[int, ...]:
    """The width of every level, as `pattern` numbers them, in units of `ch`; ValueError when one is not a multiple."""
    widths = [width_of(state, pattern.format(level)) for level in range(count_of(state, pattern))]
    if not widths or any(width % ch for width in widths):
        raise ValueError(
            f"it is not of a known tokenizer family: the levels {pattern.format('*')} have widths {widths}"
        )
    return tuple(width // ch for width in widths)
