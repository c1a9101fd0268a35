"""One GEAR iteration in plain eager PyTorch, to which `e2e-step` compares ours.

Written only from the description of the method (VQ family, float32 or autocast). The modules of gear hold the
parameters and, where the plain form is simply a module call (AR blocks, discriminator, projectors, LPIPS), are called.
What gear computes differently is written out here: the convolutional blocks module by module, distances, entropy and
posterior as (tokens x codes) matrices, and all logits at once.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.align import Projectors
from gear.ar.model import ClassConditionalAR
from gear.config import RunConfig
from gear.losses.discriminator import PatchDiscriminator
from gear.tokenizers import Tokenizer, VQConfig


class PlainRun:
    """The modules of a run, three AdamW, and two averages."""

    def __init__(
        self,
        config: RunConfig,
        *,
        tokenizer: Tokenizer,
        ar: ClassConditionalAR,
        projectors: Projectors,
        discriminator: PatchDiscriminator,
        perceptual: nn.Module | None,
        targets: Tensor,
    ) -> None:
        self.config, self.targets = config, targets
        self.tokenizer, self.ar, self.projectors = tokenizer.train(), ar, projectors
        self.discriminator, self.perceptual = discriminator.train(), perceptual
        self.averages = [(copy.deepcopy(live), live) for live in (ar, tokenizer)]
        self.tokenizer_opt = _adamw(tokenizer)
        self.discriminator_opt = _adamw(discriminator)
        self.ar_opt = _adamw(ar, projectors)

    def autocast(self) -> AbstractContextManager[Any]:
        device = self.targets.device.type
        if device == "cuda" and self.config.precision == "bf16":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()


def plain_step(run: PlainRun, pixels: Tensor, labels: Tensor) -> dict[str, float]:
    """Run one iteration, updates included, and return its losses. pixels (B, 3, H, W) in [-1, 1], labels (B,)."""
    gear, batch = run.config.gear, len(labels)
    with run.autocast():
        quant, indices, d, quantizer_loss = quantise(run.tokenizer, encode(run.tokenizer, pixels))
        recon = decode(run.tokenizer, quant)

    # Tokenizer, through the frozen AR model.
    run.ar.eval()
    for module in (run.ar, run.projectors):
        module.requires_grad_(False)
    soft = torch.softmax(-d / gear.temperature, dim=-1).view(batch, -1, d.shape[1])
    with run.autocast():
        hidden = run.ar.tap(soft[:, :-1], labels, gear.tap_layer)
        align_soft = negative_cosine(run.projectors.projs[0](hidden), run.targets)
    run.discriminator.requires_grad_(False)
    generator = F.l1_loss(recon.float(), pixels) + quantizer_loss
    if run.perceptual is not None:
        generator = generator + run.perceptual(pixels, recon.float()).mean()
    generator = generator - run.config.loss.discriminator_weight * run.discriminator(recon.float()).mean()
    vq_total = generator + gear.tokenizer_align_coeff * align_soft
    update(run.tokenizer_opt, vq_total)

    # Discriminator.
    run.discriminator.requires_grad_(True)
    real, fake = run.discriminator(pixels), run.discriminator(recon.float().detach())
    d_loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    update(run.discriminator_opt, d_loss)

    # AR model.
    run.ar.train()
    for module in (run.ar, run.projectors):
        module.requires_grad_(True)
    codes = indices.view(batch, -1)
    with run.autocast():
        logits, hidden = run.ar(codes[:, :-1], labels, tap_layer=gear.tap_layer)
        align_hard = negative_cosine(run.projectors.projs[0](hidden), run.targets)
    ce = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
    ar_total = ce + gear.align_coeff * align_hard
    update(run.ar_opt, ar_total)

    for average, live in run.averages:
        move_average(average, live, decay=0.9999)
    losses = {"vq_total": vq_total, "disc/d_loss": d_loss, "ar_total": ar_total}
    return {name: float(loss.detach()) for name, loss in losses.items()}


def encode(tokenizer: Tokenizer, pixels: Tensor) -> Tensor:
    encoder: Any = tokenizer.encoder
    h = encoder.conv_in(pixels)
    for level in encoder.conv_blocks:
        h = level.downsample(blocks(level, h))
    h = middle(encoder.mid, h)
    return tokenizer.quant_conv(encoder.conv_out(F.silu(encoder.norm_out(h))))


def decode(tokenizer: Tokenizer, quant: Tensor) -> Tensor:
    decoder: Any = tokenizer.decoder
    h = middle(decoder.mid, decoder.conv_in(tokenizer.post_quant_conv(quant)))
    for level in decoder.conv_blocks:
        h = level.upsample(blocks(level, h))
    return decoder.conv_out(F.silu(decoder.norm_out(h)))


def middle(mid: Any, h: Tensor) -> Tensor:
    return res_block(mid[2], attention(mid[1], res_block(mid[0], h)))


def blocks(level: Any, h: Tensor) -> Tensor:
    for block, attn in zip(level.res, level.attn, strict=True):
        h = res_block(block, h)
        if not isinstance(attn, nn.Identity):
            h = attention(attn, h)
    return h


def res_block(block: Any, x: Tensor) -> Tensor:
    h = block.conv1(F.silu(block.norm1(x)))
    h = block.conv2(F.silu(block.norm2(h)))
    return block.nin_shortcut(x) + h


def attention(block: Any, x: Tensor) -> Tensor:
    h = block.norm(x)
    q, k, v = block.q(h).flatten(2), block.k(h).flatten(2), block.v(h).flatten(2)
    weights = torch.softmax(q.transpose(1, 2) @ k * q.shape[1] ** -0.5, dim=-1)
    return x + block.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


def quantise(tokenizer: Tokenizer, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Straight-through code map, indices (N,), squared distances d (N, K), and the quantiser's loss."""
    config, codebook = tokenizer.config, tokenizer.quantize.embedding.weight  # type: ignore[union-attr]
    assert isinstance(config, VQConfig)
    with torch.autocast(features.device.type, enabled=False):
        batch, channels, height, width = features.shape
        z = F.normalize(features.float().permute(0, 2, 3, 1).reshape(-1, channels), dim=-1)
        e = F.normalize(codebook, dim=-1)
        d = z.square().sum(1, keepdim=True) + e.square().sum(1) - 2 * z @ e.T
        indices = d.argmin(dim=1)
        z_q = e[indices]
        entropy = config.entropy_loss_ratio * entropy_loss(-d)
        loss = F.mse_loss(z_q, z.detach()) + config.commit_loss_beta * F.mse_loss(z, z_q.detach()) + entropy
        through = z + (z_q - z).detach()
        return through.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous(), indices, d, loss


def entropy_loss(affinity: Tensor, temperature: float = 0.01) -> Tensor:
    p = torch.softmax(affinity / temperature, dim=-1)
    log_p = torch.log_softmax(affinity / temperature + 1e-5, dim=-1)
    mean_p = p.mean(dim=0)
    return -(p * log_p).sum(dim=-1).mean() + (mean_p * torch.log(mean_p + 1e-5)).sum()


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    return -(F.normalize(predicted.float(), dim=-1) * F.normalize(target, dim=-1)).sum(-1).mean()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def move_average(average: nn.Module, live: nn.Module, decay: float) -> None:
    for ours, theirs in zip(average.parameters(), live.parameters(), strict=True):
        ours.mul_(decay).add_(theirs, alpha=1 - decay)


def _adamw(*modules: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for module in modules for p in module.parameters()], lr=1e-4, weight_decay=0.0)
