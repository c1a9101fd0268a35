"""Floating-point operations that training on one image needs, for the model FLOPs utilisation (MFU).

    MFU = images/s * F / (peak FLOP/s of a device * devices)

F counts multiplications and additions (2 per product) of matrix products and convolutions. A module costs f in the
forward pass, f for the gradient of its input and f for that of its weights. With T = encoder + decoder + distances,
A = the AR model (2 per weight and slot, 4 S D per block and slot for attention over S slots, not halved for causality),
A_n = its first n blocks, P = the projectors, C = the critic:

    tokenizer   3 T + 8 C           (critic: 2 C in the tokenizer's pass, 3 C each for real and fake)
    e2e         3 T + 8 C + 2 (A_n + mixing embeddings + P) + 3 (A + P)
    ar, t2i     encoder + distances + 3 (A + P)

Not counted, as usual for MFU: what a recipe adds around the models (teacher, LPIPS, text encoder) and recomputation.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gear.align import Projectors
from gear.ar.model import Trunk
from gear.losses.discriminator import PatchDiscriminator
from gear.tokenizers.base import Tokenizer
from gear.training.stages.stage import Stage


def flops_per_image(stage: Stage) -> float:
    """F of the formula above for one image of `stage`."""
    side = stage.config.data.image_size
    tokenizer, ar = stage.modules["vq"], stage.modules.get("ar")
    assert isinstance(tokenizer, Tokenizer)
    encode, decode = tokenizer_flops(tokenizer, side)
    critic = stage.modules.get("discriminator")
    learnt = encode  # a frozen tokenizer only encodes
    if isinstance(critic, PatchDiscriminator):
        learnt = 3 * (encode + decode) + 8 * discriminator_flops(critic, side)
    if not isinstance(ar, Trunk):
        return learnt
    projectors = projector_flops(stage.modules.get("projectors"), ar.config.block_size)
    total = learnt + 3 * (ar_flops(ar, ar.config.n_layer) + head_flops(ar) + projectors)
    if critic is not None:
        config = ar.config
        mixing = 2.0 * config.block_size * config.vocab_size * config.dim
        total += 2 * (ar_flops(ar, stage.config.gear.tap_layer) + mixing + projectors)
    return total


def tokenizer_flops(tokenizer: Tokenizer, side: int) -> tuple[float, float]:
    """Forward FLOPs of (encoding with the distances to all codes, decoding) one image of side x side pixels."""
    config = tokenizer.config
    grid = config.grid_side(side)
    encoder, decoder, before, after = (
        copy.deepcopy(module).to("meta")
        for module in (tokenizer.encoder, tokenizer.decoder, tokenizer.quant_conv, tokenizer.post_quant_conv)
    )
    encode = counted(nn.Sequential(encoder, before), (1, 3, side, side))
    decode = counted(nn.Sequential(after, decoder), (1, config.code_dim, grid, grid))
    return encode + 2.0 * grid**2 * config.num_codes * config.code_dim, decode


def discriminator_flops(critic: PatchDiscriminator, side: int) -> float:
    """Forward FLOPs of one image. In eval mode, which costs the same and needs no other process."""
    return counted(copy.deepcopy(critic).to("meta").eval(), (1, 3, side, side))


def ar_flops(ar: Trunk, num_blocks: int) -> float:
    """Forward FLOPs of the first blocks for one image."""
    slots = ar.config.max_sequence - 1
    weights = sum(_matrix_sizes(block) for block in list(ar.layers)[:num_blocks])
    return 2.0 * slots * weights + num_blocks * 4.0 * slots**2 * ar.config.dim


def head_flops(ar: Trunk) -> float:
    return 2.0 * ar.config.block_size * ar.output.weight.numel()


def projector_flops(projectors: nn.Module | None, num_tokens: int) -> float:
    if projectors is None:
        return 0.0
    assert isinstance(projectors, Projectors)
    return 2.0 * num_tokens * _matrix_sizes(projectors)


def _matrix_sizes(module: nn.Module) -> int:
    """Weights that a slot is multiplied with: text slots use their own instead of the image's, not in addition."""
    return sum(
        part.weight.numel()
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and not name.endswith("_text")
    )


@torch.no_grad()
def counted(module: nn.Module, shape: tuple[int, ...]) -> float:
    """FLOPs of one forward pass on the meta device, where nothing is computed."""
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    return float(counter.get_total_flops())
