"""An opened model file: its parts, their architecture, and the models built from them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from gear.ar.checkpoints import build_ar, recognise_ar, table_length
from gear.ar.config import TextARConfig, TrunkConfig
from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.archive import is_sealed
from gear.config import RunConfig
from gear.foreign import StateDict, check_shapes, load_exactly
from gear.text.base import TextConfig
from gear.tokenizers import FAMILIES, TOKENIZERS, Tokenizer, TokenizerConfig, build_tokenizer
from gear.tokenizers.recognise import recognise_tokenizer
from gear.weights.hub_layout import Card
from harness.contract.digest import digest_sequence, sha256_file
from harness.contract.errors import UserError

log = logging.getLogger(__name__)

Kind = Literal["tokenizer", "ar", "projectors", "discriminator"]

_KINDS: dict[Kind, tuple[str, ...]] = {
    "tokenizer": ("vq_ema", "vq"),
    "ar": ("ema", "ar"),
    "projectors": ("projectors",),
    "discriminator": ("discriminator",),
}
"""The parts that hold a model: averaged first, live last."""

_MISSING: dict[Kind, tuple[str, str]] = {
    "tokenizer": ("tokenizer", "name its file as well (--vq-ckpt when sampling, --tokenizer when training)."),
    "ar": ("AR model", "give the file of a stage that trains one, or the published one."),
}
"""Its name in messages, and what to do when there is none."""

_DEFAULT_DOWNSAMPLE = 16
_DEFAULT_IMAGE_SIZE = 256
_SIZE_IN_NAME = re.compile(r"[ct]2i_(?:S|B|L|XL|XXL|XXXL|3B)_(?:stage\d_)?(256|384|512)")
"""LlamaGen's file names (c2i_B_384.pt, t2i_XL_stage2_512.pt): the image size is recorded nowhere else."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """State dicts under our keys, and the facts that their file records. Made by `open_model`."""

    source: str
    """As the user wrote it."""
    path: Path
    """The file; for a folder or repository its config.json."""
    layout: str
    parts: Mapping[str, StateDict]
    """By the names in `PARTS`; tensors are mapped from the file."""
    original: Mapping[str, Mapping[str, Any]]
    """The same before anything was dropped."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """What was left out: key, or group of keys -> how much, and why."""
    phase: str | None = None
    """The stage of `gear train` that wrote it."""
    steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Plain settings of the original training (`args`)."""
    run: Mapping[str, Any] | None = None
    """The configuration of `gear train`, unparsed."""
    card: Card | None = None
    preset: RunConfig | None = None
    """The configuration that the user gives for a file that carries none."""

    @cached_property
    def config(self) -> RunConfig | None:
        """The configuration of the training run; None for third-party files, which carry none."""
        with self._understood("configuration"):
            return None if self.run is None else RunConfig.from_dict(self.run)

    @cached_property
    def digest(self) -> str:
        """sha256 of the file; for a folder of safetensors, of its parts' sha256, one per line."""
        if self.card is not None:
            return digest_sequence(entry["sha256"] for entry in self.card.parts.values())
        return sha256_file(self.path)

    @cached_property
    def seal(self) -> str:
        """The checksum that the content was compared with when it was read, or that there is none."""
        if self.card is not None:
            return "sha256 of every part, in config.json"
        return "CRC-32 of every record" if is_sealed(self.path) else "none: a damaged tensor would go unnoticed"

    def has(self, kind: Kind) -> bool:
        """Whether there are weights of that kind, live or averaged."""
        return any(name in self.parts for name in _KINDS[kind])

    def weights(self, kind: Kind, *, ema: bool = True) -> StateDict:
        """The state dict of one model. ema: True prefers averaged weights; False requires live ones."""
        return self.parts[self._part(kind, ema)]

    def _part(self, kind: Kind, ema: bool) -> str:
        averaged, live = _KINDS[kind][0], _KINDS[kind][-1]
        if ema and averaged in self.parts:
            return averaged
        if live in self.parts:
            return live
        if averaged in self.parts:
            raise UserError(
                f"{self.source} holds averaged weights only ({averaged!r}), but live ones were asked for; "
                "leave out --no-ema (ema=False), or give the training checkpoint."
            )
        wanted, fix = _MISSING.get(kind, (kind, "give the file of a stage that trains one."))
        raise UserError(f"{self.source} holds no {wanted} (it has {', '.join(self.parts)}); {fix}")

    # -- which architecture --

    @cached_property
    def tokenizer_config(self) -> TokenizerConfig:
        """The tokenizer of this file: as recorded, else inferred from its tensors. UserError when it has none."""
        part = self._part("tokenizer", True)
        if self._recorded_tokenizer is not None:
            return self._recorded_tokenizer
        with self._understood("tokenizer"):
            return recognise_tokenizer({**self.original[part], **self.parts[part]}, settings=self.settings)

    @cached_property
    def trained_with(self) -> TokenizerConfig | None:
        """The tokenizer that the AR model was trained with, if the file records it; for `check_pair`."""
        if self._recorded_tokenizer is not None:
            return self._recorded_tokenizer
        if self.has("tokenizer"):
            return self.tokenizer_config
        published = TOKENIZERS.get(str(self.settings.get("vq_model")))
        if published is None:
            return None
        recorded = FAMILIES[published.family].recorded_sizes
        return replace(published, **{n: self.settings[n] for n in recorded if isinstance(self.settings.get(n), int)})

    @property
    def _recorded_tokenizer(self) -> TokenizerConfig | None:
        said = self.config or (self.preset if self.card is None else None)
        if said is not None:
            return said.tokenizer
        return None if self.card is None else self.card.tokenizer_config

    @property
    def _recorded_ar(self) -> TrunkConfig | None:
        said = self.config or (self.preset if self.card is None else None)
        if said is not None:
            return said.ar
        return None if self.card is None else self.card.ar_config

    @property
    def downsample(self) -> int:
        """Pixels along one side of a token; 16, as published, if the file does not record it."""
        if self.trained_with is not None:
            return self.trained_with.downsample
        ratio = self.settings.get("downsample_ratio")
        return ratio if isinstance(ratio, int) else _DEFAULT_DOWNSAMPLE

    @cached_property
    def image_size(self) -> int | None:
        """The image size of the training, from the file, its settings, its rotary table or its name; else None."""
        if self.config is not None:
            return self.config.data.image_size
        if self.card is not None:
            return self.card.image_size
        if isinstance(size := self.settings.get("image_size"), int):
            return size
        if self.has("ar"):
            state = self.original[self._part("ar", True)]
            with self._understood("AR model"):
                if (length := table_length(state)) is not None:
                    cond = recognise_ar(state, num_tokens=1).cls_token_num
                    return round((length - cond) ** 0.5) * self.downsample
            if named := _SIZE_IN_NAME.fullmatch(self.path.stem):
                return int(named[1])
        return None if self.preset is None else self.preset.data.image_size

    def ar_config(self, image_size: int | None = None) -> TrunkConfig:
        """The AR model of this file: as recorded, else inferred from its tensors.

        image_size: the size it is needed for. A model of another size is refused; one whose size is unknown is assumed
        to have this size, or, with a warning, 256 px if None. UserError when there is no AR model.
        """
        part = self._part("ar", True)
        wanted = image_size or (None if self.preset is None else self.preset.data.image_size)
        if wanted is not None and self.image_size not in (None, wanted):
            raise UserError(
                f"{self.source} was trained for {self.image_size} px images, but {wanted} px were asked for; "
                f"give a model of that size, or ask for {self.image_size} px."
            )
        if self._recorded_ar is not None:
            return self._recorded_ar
        size = image_size or self.image_size
        if size is None:
            size = _DEFAULT_IMAGE_SIZE
            log.warning(
                "%s does not record its image size; %d px is assumed (set image_size= otherwise).", self.source, size
            )
        known = {name: self.settings[name] for name in _SETTINGS if name in self.settings}
        with self._understood("AR model"):
            return recognise_ar(self.original[part], num_tokens=(size // self.downsample) ** 2, **known)

    def text_settings(self, ar: TextARConfig) -> tuple[TextConfig, str]:
        """Text encoder and precision: from the run, else from the reference's settings, whose default is bfloat16."""
        if self.config is not None and self.config.text is not None:
            return self.config.text, self.config.precision
        source = self.settings.get("text_encoder") or None
        text = TextConfig(source=source, dim=ar.caption_dim, max_length=ar.cls_token_num)
        return text, str(self.settings.get("mixed_precision") or "bf16")

    def check_tensors(
        self, kind: Literal["tokenizer", "ar"], *, ema: bool = True, image_size: int | None = None
    ) -> None:
        """Raise UserError unless the tensors of that model have the names and shapes of its architecture.

        Values are not read. image_size: of the AR model, as in `ar_config`.
        """
        part = self._part(kind, ema)
        with self._understood("tokenizer" if kind == "tokenizer" else "AR model"), torch.device("meta"):
            build = (
                build_tokenizer(self.tokenizer_config) if kind == "tokenizer" else build_ar(self.ar_config(image_size))
            )
        check_shapes(build, self.parts[part], source=f"{part!r} of {self.source}")

    # -- models --

    def tokenizer(self, *, ema: bool = True, config: TokenizerConfig | None = None) -> Tokenizer:
        """The tokenizer in eval mode.

        ema: True prefers averaged weights; False requires live ones. config: the architecture, instead of the recorded
        one. Raises UserError when there is none, or its tensors do not fit.
        """
        part = self._part("tokenizer", ema)
        chosen = config or self.tokenizer_config
        with (
            self._understood("tokenizer"),
            torch.device("meta"),
        ):  # draws no initial weights, which would be overwritten
            tokenizer = build_tokenizer(chosen)
        load_exactly(tokenizer, self.parts[part], source=f"{part!r} of {self.source}", assign=True)
        tokenizer.quantize.reset_constants()  # they are in no file
        self._report(part)
        return tokenizer.eval()

    def ar(
        self, *, ema: bool = True, image_size: int | None = None, config: TrunkConfig | None = None
    ) -> ClassConditionalAR | TextToImageAR:
        """The AR model in eval mode, class-conditional or text-to-image.

        image_size: as in `ar_config`; the others as in `tokenizer`.
        """
        part = self._part("ar", ema)
        chosen = config or self.ar_config(image_size)
        weights = self.parts[part]
        with self._understood("AR model"), torch.device("meta"):
            model = build_ar(chosen)
        load_exactly(model, weights, source=f"{part!r} of {self.source}", assign=True)
        self._report(part)
        return model.to(model.output.weight.device).eval()  # places the rotary table

    def null_caption(self) -> TextCondition:
        """The empty caption of a text-to-image run as its text encoder gave it, one row: guidance's null condition.

        Stored with the run, since an encoder's features at fully masked positions depend on its attention kernel.
        """
        if "null_caption" not in self.parts:
            raise UserError(f"{self.source} holds no empty caption; give a file of `gear train t2i`.")
        null = self.parts["null_caption"]
        return TextCondition(features=null["features"], mask=null["mask"])

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Turn what values and tensors of unexpected kinds cause into one sentence that names the file."""
        try:
            yield
        except (*_NO_SIZE, UserError) as error:
            raise UserError(f"{self.source} holds an unknown kind of {what}: {str(error).rstrip('.')}.") from None

    def _report(self, part: str) -> None:
        left_out = "; ".join(f"{key} ({why})" for key, why in self.dropped.items())
        log.info("%r of %s (%s)%s", part, self.source, self.layout, f"; left out: {left_out}" if left_out else "")


_NO_SIZE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""The errors that tensors of unexpected shapes cause; they mean an unknown architecture."""
_SETTINGS = ("cls_token_num", "text_attn", "drop_path_rate", "token_dropout_p", "num_classes", "n_head")
"""Settings of the reference's training that are fields of the AR configuration under the same name."""
