"""One configuration holds a whole run: data, models, the losses, and what each stage does.

Its values come from a preset (`gear.presets`), and `--set a.b=c` overrides a single field. Nothing is read leniently:
an unknown field or a value of the wrong type is refused with the nearest known name (`harness.contract.fields`).
Checkpoints carry the configuration, so it need not be given again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gear.ar.config import ARConfig, TextARConfig, ar_size
from gear.data.sources import DataConfig
from gear.losses.head import LossConfig
from gear.presets import apply_override, read_preset
from gear.ranges import Bound, Count, Fraction, Natural, Positive, Seed, Weight
from gear.teachers import TeacherConfig, check_image_size
from gear.text.base import TextConfig
from gear.tokenizers.base import TokenizerConfig
from gear.training.settings import EngineConfig, WatchConfig
from harness.contract.errors import UserError
from harness.contract.fields import build

PHASES = ("tokenizer", "e2e", "ar")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    ndf: Count = 64
    """Filters of the first layer; doubled per layer up to eight times."""
    n_layers: Count = 3
    """Layers of stride 2 between the first and the last."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation inside the discriminator."""


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    name: Literal["none", "lpips"] = "lpips"
    """`lpips` needs VGG16, the file below; `none` trains without a perceptual loss."""
    vgg_weights: str | None = None
    """torchvision's VGG16 IMAGENET1K_V1 state dict: a path, or an address that `gear.assets` finds."""
    lpips_weights: str | None = None
    """The linear heads of LPIPS v0.1, `vgg.pth`; likewise. None: those of the package `lpips`."""


@dataclass(frozen=True, kw_only=True)
class GearConfig:
    """The method itself (paper: the two read-outs and their one coefficient)."""

    temperature: Positive = 0.1
    """tau of the soft read-out softmax(-d / tau)."""
    tap_layer: Count = 8
    """AR block after which features are aligned with the teacher, counted from 1."""
    projector_dim: Count = 2048
    """Hidden width of the projector from AR features to teacher features."""
    align_coeff: Weight = 0.5
    """lambda_AR: weight of the alignment loss beside next-token prediction (hard codes); 0: without, and in the stages
    ar and t2i no teacher is loaded."""
    tokenizer_align_coeff: Weight = 0.5
    """lambda_tok: weight of the alignment loss that reaches the tokenizer through the frozen AR (soft codes)."""
    straight_through: bool = False
    """Ablation: feed one-hot values with the gradient of the soft codes."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    lr: Weight = 1e-4
    """Learning rate after the warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """From there on: the same rate, or half a cosine down to `lr_min` at the stage's last update."""
    lr_min: Weight = 0.0
    """Where the cosine ends."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: Weight = 0.0
    """Decoupled (AdamW), on all parameters."""
    warmup_steps: Natural = 1
    """Update u (from 0) runs at lr * u / warmup_steps until then; 1 makes the first update a no-op, as published."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What one stage does. Fields that a stage has no use for (an AR stage's tokenizer optimizer) are ignored."""

    steps: Count = 400_000
    """Optimizer updates, at most."""
    epochs: Count = 1
    """Where `samples_per_epoch` is given: passes over the data."""
    samples_per_epoch: Natural = 0
    """What counts as a pass; with `epochs` and the batch size it bounds `steps`. 0 = no such bound."""
    init: str | None = None
    """What the stage starts from where `--init` does not say: a file, a run folder, or hf://owner/name/file."""
    batch_size: Count = 256
    """Images of one update, over all processes and micro-batches."""
    accumulation: Count = 1
    """Micro-batches per update."""
    tokenizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator: OptimizerConfig = field(default_factory=OptimizerConfig)
    ar: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_grad_norm: Bound = 1.0
    """Gradients of each optimizer are clipped to this global L2 norm; 0 and .inf: they are not."""
    ema_decay: Fraction = 0.9999
    """Decay of the averaged weights, per update."""
    checkpoint_every: Count = 25_000
    """Updates between checkpoints; the last update, and those at which a monitor measures, always have one."""
    keep_checkpoints: Count = 2
    """Newest checkpoints kept; older ones are deleted."""
    keep_every: Natural = 0
    """Checkpoints at multiples of this many updates are never deleted; 0 = no such exception."""
    log_every: Count = 1
    """Updates between lines of the log."""

    def __post_init__(self) -> None:
        if math.isinf(self.max_grad_norm):
            object.__setattr__(self, "max_grad_norm", 0.0)  # JSON has no infinity
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split into {self.accumulation} equal micro-batches"
            )
        if self.samples_per_epoch:
            bound = self.epochs * math.ceil(self.samples_per_epoch / self.batch_size)
            object.__setattr__(self, "steps", min(self.steps, bound))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run, apart from the files it starts from."""

    name: str = "run"
    seed: Seed = 0
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Autocast type of the forward passes; parameters stay float32. `fp16`, with scaled losses, is for GPUs without
    bfloat16 (V100, T4). The CPU always runs fp32."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig
    ar: ARConfig | TextARConfig
    """The text-to-image model where there is a section `text`, else the class-conditional one."""
    text: TextConfig | None = None
    """The text encoder of stage t2i."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    gear: GearConfig = field(default_factory=GearConfig)
    stages: dict[str, StageConfig] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        if self.gear.tap_layer > self.ar.n_layer:
            raise ValueError(f"gear.tap_layer is {self.gear.tap_layer} but the AR model has {self.ar.n_layer} blocks")
        for name in self.teacher.names if any(map(self.aligns, self.stages)) else ():
            check_image_size(name, self.data.image_size)

    def stage(self, phase: str) -> StageConfig:
        if phase not in self.stages:
            raise UserError(
                f"the configuration {self.name!r} has no stage {phase!r} (stages.{phase}); it has "
                f"{', '.join(self.stages) or 'no stage at all'}. `gear presets` lists others."
            )
        return self.stages[phase]

    def aligns(self, phase: str) -> bool:
        """Whether a stage aligns anything with a teacher; with coefficients of 0 none is needed, built or loaded."""
        gear = self.gear
        return phase != "tokenizer" and (gear.align_coeff > 0 or (phase == "e2e" and gear.tokenizer_align_coeff > 0))

    @property
    def phases(self) -> tuple[str, ...]:
        """The stages that this configuration can train."""
        return PHASES if self.text is None else ("t2i",)

    @property
    def class_ar(self) -> ARConfig:
        """The AR model of the class-conditional stages."""
        if not isinstance(self.ar, ARConfig):
            raise UserError(f"the configuration {self.name!r} is for text-to-image; train it with `gear train t2i`.")
        return self.ar

    @property
    def text_ar(self) -> TextARConfig:
        """The AR model of stage t2i."""
        if not isinstance(self.ar, TextARConfig):
            raise UserError(
                f"the configuration {self.name!r} has no section `text`; take a text-to-image preset (digits-t2i, ...)."
            )
        return self.ar

    def to_dict(self) -> dict[str, Any]:
        """Plain types, `from_dict` reads it back; this is what a checkpoint carries."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        plain["tokenizer"] = self.tokenizer.to_dict()
        return plain

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RunConfig:
        """Raises UserError naming the field that is unknown or has the wrong type."""
        return build(RunConfig, derived(values), "the configuration")


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other fields, so that no number has to be given twice.

    The AR model's vocabulary is the codebook, its sequence the token grid, and its classes those of the data (or its
    prefix the captions of the text encoder).
    `ar.size: LlamaGen-B` stands for the published dimensions.
    """
    for section in ("tokenizer", "ar"):
        if section not in values:
            raise UserError(f"the configuration has no section {section!r}.")
    try:
        tokenizer = TokenizerConfig.from_dict(values["tokenizer"])
        data = build(DataConfig, values.get("data", {}), "the configuration", path="data")
        follows = {"vocab_size": tokenizer.num_codes, "block_size": tokenizer.tokens(data.image_size)}
    except ValueError as error:
        raise UserError(f"tokenizer: {error}.") from None
    if values.get("text") is None:
        follows["num_classes"] = data.num_classes
    else:
        text = build(TextConfig, values["text"], "the configuration", path="text")
        follows |= {"cls_token_num": text.max_length, "caption_dim": text.feature_dim}
    ar = with_size(values["ar"], text=values.get("text") is not None)
    for name, value in follows.items():
        if ar.setdefault(name, value) != value:
            raise UserError(f"ar.{name} is {ar[name]!r:.80} but the other sections make it {value}; leave it out.")
    return {**values, "ar": ar}


def with_size(ar: Any, *, text: bool) -> dict[str, Any]:
    """The section `ar` with the dimensions of its `size` instead of that name."""
    if not isinstance(ar, Mapping):
        raise UserError(f"the section `ar` of the configuration must hold fields, not {ar!r:.80}.")
    given = dict(ar)
    size = given.pop("size", None)
    if size is None:
        return given
    try:
        return {**ar_size(str(size), text=text), **given}
    except ValueError as error:
        raise UserError(f"ar: {error}.") from None


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a preset's name or a YAML file, with `a.b=c` overrides applied in order."""
    values = read_preset(source)
    for override in overrides:
        apply_override(values, override)
    return RunConfig.from_dict(values)
