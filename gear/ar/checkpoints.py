"""Which AR model a state dict belongs to, and what LlamaGen's checkpoints hold besides its weights.

Names and shapes of the tensors determine everything except three things: the number of heads (known for a registered
size, and from the rotary table that old files carry), the image size, and the number of text slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gear.ar.config import AR_SIZES, TEXT_AR_SIZES, ARConfig, TextARConfig, TrunkConfig
from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextToImageAR
from gear.keytable import Dropped, KeyTable

State = Mapping[str, Tensor]

AR_KEYS = KeyTable(
    {
        "cls_embedding.uncond_embedding": Dropped("LlamaGen's null caption; guidance takes the null as a condition"),
        "cls_embedding.*": "cls_embedding.*",
        "tok_embeddings.weight": "tok_embeddings.weight",
        "layers.*": "layers.*",
        "norm.weight": "norm.weight",
        "output.weight": "output.weight",
        "freqs_cis": Dropped("rotary table, which follows from the size"),
        "causal_mask": Dropped("attention mask, which follows from the length"),
    }
)
"""LlamaGen's keys on the left, ours on the right."""

_IMAGENET = 1000
_TEXT_SLOTS = 300
"""GEAR's number of text slots; LlamaGen's files carry a null caption, which has as many rows as theirs."""


def is_ar(state: Mapping[str, object]) -> bool:
    """Whether these are the weights of an AR model, class-conditional or text-to-image."""
    return "tok_embeddings.weight" in state and "layers.0.attention.wqkv.weight" in state


def build_ar(config: TrunkConfig) -> ClassConditionalAR | TextToImageAR:
    """A freshly initialised model of the kind that `config` describes."""
    if isinstance(config, TextARConfig):
        return TextToImageAR(config)
    if isinstance(config, ARConfig):
        return ClassConditionalAR(config)
    raise TypeError(f"no AR model can be built from {type(config).__name__}; use ARConfig or TextARConfig")


def is_text_to_image(model: Trunk | TrunkConfig) -> bool:
    """Whether the condition is a caption."""
    return isinstance(model if isinstance(model, TrunkConfig) else model.config, TextARConfig)


def ar_name(config: TrunkConfig) -> str | None:
    """The registered name of this size, or None."""
    size = {"n_layer": config.n_layer, "n_head": config.n_head, "dim": config.dim}
    sizes = TEXT_AR_SIZES if is_text_to_image(config) else AR_SIZES
    return next((name for name, registered in sizes.items() if dict(registered) == size), None)


def table_length(state: State) -> int | None:
    """Conditioning and image slots together, from the rotary table that some old files carry."""
    return int(state["freqs_cis"].shape[0]) if "freqs_cis" in state else None


def recognise_ar(state: State, *, num_tokens: int, **known: Any) -> ARConfig | TextARConfig:
    """The configuration of the AR model that `state` belongs to.

    num_tokens: image tokens L. known: further fields of the configuration, from the file's own settings.
    Raises ValueError when the tensors do not determine the number of heads of an unregistered size, or one is missing.
    """
    vocabulary, dim = _shape(state, "tok_embeddings.weight")
    n_layer = len({key.split(".")[1] for key in state if key.startswith("layers.")})
    text = "cls_embedding.cap_proj.fc1.weight" in state
    fields: dict[str, Any] = {
        "dim": dim,
        "n_layer": n_layer,
        "n_head": known.pop("n_head", None) or _heads(state, dim, n_layer, text=text),
        "vocab_size": vocabulary,
        "block_size": num_tokens,
        "multiple_of": _multiple_of(dim, _shape(state, "layers.0.feed_forward.w1.weight")[0]),
    }
    num_classes = known.pop("num_classes", None)  # text-to-image runs store one that nothing reads
    specific = _text_fields(state) if text else _class_fields(state, num_classes)
    return (TextARConfig if text else ARConfig)(**{**fields, **specific, **known})


def _heads(state: State, dim: int, n_layer: int, *, text: bool) -> int:
    if "freqs_cis" in state:
        return dim // (2 * _shape(state, "freqs_cis")[1])
    for size in (TEXT_AR_SIZES if text else AR_SIZES).values():
        if (size["dim"], size["n_layer"]) == (dim, n_layer):
            return size["n_head"]
    raise ValueError(
        f"{n_layer} blocks of width {dim} are not a registered size, and no tensor gives the number of heads; "
        "give the configuration (config=, or --preset)"
    )


def _multiple_of(dim: int, ffn_dim: int) -> int:
    """The largest usual rounding that gives this hidden width."""
    hidden = int(2 * (4 * dim) / 3)
    for multiple in (256, 128, 64, 32, 16, 8, 4, 2, 1):
        if multiple * math.ceil(hidden / multiple) == ffn_dim:
            return multiple
    raise ValueError(f"a feed-forward of width {ffn_dim} does not belong to a model of width {dim}")


def _class_fields(state: State, num_classes: int | None) -> dict[str, Any]:
    """The last row of the label table is the null class, unless there are no more rows than classes.

    num_classes: as recorded in the file, used where it fits the table. Otherwise a table with exactly ImageNet's number
    of rows is taken to have no null class.
    """
    rows = _shape(state, "cls_embedding.embedding_table.weight")[0]
    if rows == (num_classes if num_classes in (rows, rows - 1) else _IMAGENET):
        return {"num_classes": rows, "class_dropout_prob": 0.0}
    return {"num_classes": rows - 1}


def _text_fields(state: State) -> dict[str, Any]:
    null = state.get("cls_embedding.uncond_embedding")
    return {
        "caption_dim": _shape(state, "cls_embedding.cap_proj.fc1.weight")[1],
        "cls_token_num": _TEXT_SLOTS if null is None else int(null.shape[0]),
        "n_double_stream_layers": sum(key.endswith("attention.wqkv_text.weight") for key in state),
    }


def _shape(state: State, key: str) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"it is not a known AR model: {key} is missing")
    return tuple(state[key].shape)
