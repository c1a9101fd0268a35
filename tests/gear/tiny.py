"""A GEAR run small enough for a unit test: 8-pixel images, 16 tokens, a few thousand parameters."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gear.align import Projectors
from gear.ar.model import ClassConditionalAR
from gear.config import RunConfig
from gear.data.base import Sample
from gear.data.loader import Batch
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossHead
from gear.tokenizers import build_tokenizer
from gear.training.stages.ar import ARStage
from gear.training.stages.e2e import GearStage
from gear.training.stages.tokenizer import TokenizerStage

IMAGE_SIZE, NUM_CLASSES, TEACHER_DIM = 8, 3, 5

VALUES: dict[str, Any] = {
    "name": "tiny",
    "precision": "fp32",
    "data": {"kind": "image-folder", "image_size": IMAGE_SIZE, "num_classes": NUM_CLASSES, "num_workers": 0},
    "tokenizer": {
        "family": "vq",
        "codebook_size": 16,
        "codebook_embed_dim": 4,
        "ch": 32,
        "encoder_ch_mult": [1, 1],
        "decoder_ch_mult": [1, 1],
        "num_res_blocks": 1,
        "z_channels": 32,
        "entropy_loss_ratio": 0.05,
    },
    "ar": {"dim": 16, "n_layer": 2, "n_head": 2, "multiple_of": 16},
    "perceptual": {"name": "none"},
    "loss": {"perceptual_weight": 0.0},
    "discriminator": {"ndf": 4, "n_layers": 1},
    "gear": {"tap_layer": 1, "projector_dim": 8},
    "stages": {
        phase: {
            "steps": 6,
            "batch_size": 4,
            "checkpoint_every": 2,
            "ema_decay": 0.9,
            "tokenizer": {"lr": 1e-3},
            "discriminator": {"lr": 1e-3},
            "ar": {"lr": 1e-3},
        }
        for phase in ("tokenizer", "e2e", "ar")
    },
}


def config(**stage: Any) -> RunConfig:
    """The tiny configuration; keywords change every stage."""
    values = copy.deepcopy(VALUES)
    for settings in values["stages"].values():
        settings.update(stage)
    return RunConfig.from_dict(values)


class Noise:
    """A source of random images, fixed per index."""

    def __len__(self) -> int:
        return 10

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        pixels = np.random.default_rng(index).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
        return Sample(pixels, index % NUM_CLASSES, f"{index % NUM_CLASSES} of {index}")


def batch(count: int = 4) -> Batch:
    source, rng = Noise(), np.random.default_rng(0)
    items = [source.item(index, rng) for index in range(count)]
    images = torch.from_numpy(np.stack([item.image_u8 for item in items]))
    captions = tuple(item.caption for item in items)
    return Batch(images, torch.tensor([item.label for item in items]), torch.arange(count), captions)


class FixedTargets:
    """Replaces a teacher's targets: fixed random patches per sample, of a known width."""

    def __call__(self, images_u8: Tensor, ids: Tensor) -> list[Tensor]:
        tokens = (IMAGE_SIZE // 2) ** 2
        rows = [torch.randn(tokens, TEACHER_DIM, generator=torch.Generator().manual_seed(int(i))) for i in ids]
        return [torch.stack(rows)]


def stage(phase: str, run_config: RunConfig | None = None) -> TokenizerStage | GearStage | ARStage:
    """A freshly built stage, the same weights each time."""
    run_config = run_config or config()
    if phase == "t2i":
        from tests.gear import tiny_text  # which needs transformers

        return tiny_text.stage(tiny_text.config(run_config))
    torch.manual_seed(0)
    device = torch.device("cpu")
    tokenizer = build_tokenizer(run_config.tokenizer)
    critic = run_config.discriminator
    losses = LossHead(run_config.loss, PatchDiscriminator(ndf=critic.ndf, n_layers=critic.n_layers), None)
    if phase == "tokenizer":
        return TokenizerStage(run_config, device, tokenizer=tokenizer, losses=losses)
    ar = ClassConditionalAR(run_config.class_ar)
    torch.nn.init.normal_(ar.output.weight, std=0.02)  # a zero head would keep the first gradients from the trunk
    projectors = Projectors(run_config.ar.dim, run_config.gear.projector_dim, [TEACHER_DIM])
    parts: dict[str, Any] = {"tokenizer": tokenizer, "ar": ar, "projectors": projectors, "targets": FixedTargets()}
    if phase == "ar":
        return ARStage(run_config, device, **parts)
    return GearStage(run_config, device, losses=losses, **parts)
