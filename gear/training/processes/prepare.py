"""Prepare modules for several processes and for speed, following the section `engine` of a configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gear.ar.model import Trunk
from gear.config import RunConfig
from gear.losses.discriminator import PatchDiscriminator
from gear.tokenizers.base import Tokenizer
from gear.training.processes.distributed import world
from gear.training.processes.sharding import shard
from gear.training.processes.sync_norm import synchronise_batch_norms

log = logging.getLogger(__name__)


def prepare(config: RunConfig, device: torch.device, modules: Iterable[nn.Module], sharded: list[nn.Module]) -> None:
    """In place: the same weights in every process, batch norms over all of them, compilation, sharding.

    modules: everything that runs in a step. sharded: those that FSDP shards, if the configuration asks for it.
    """
    modules = list(modules)
    if autocast_dtype(config, device) == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        log.warning("this GPU only emulates bfloat16, slowly; --set precision=fp16 is made for it.")
    if world().size > 1:
        for module in modules:
            broadcast_weights(module)
            synchronise_batch_norms(module)
    if config.engine.compile and device.type == "cuda":
        compile_parts(modules)
    if config.engine.sharding == "fsdp" and world().size > 1:
        shard(sharded, device, autocast_dtype(config, device))


def autocast_dtype(config: RunConfig, device: torch.device) -> torch.dtype | None:
    """The type of forward passes on a GPU if the configuration asks for one; None: float32, as always on a CPU."""
    return _HALF.get(config.precision) if device.type == "cuda" else None


_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compile_parts(modules: Iterable[nn.Module], **options: Any) -> None:
    """Compile the parts of `modules` in place. options: those of torch.compile."""
    limits = torch._dynamo.config
    # A block is compiled for training, for reading it frozen, and with and without gradients of its input.
    limits.recompile_limit = max(64, limits.recompile_limit)
    limits.accumulated_recompile_limit = max(512, limits.accumulated_recompile_limit)
    for module in modules:
        for part in compiled_parts(module):
            part.compile(**options)


@torch.no_grad()
def broadcast_weights(module: nn.Module) -> None:
    """Copy the main process's parameters and buffers to all processes, without relying on equal seeds."""
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor, src=0)


def compiled_parts(module: nn.Module) -> list[nn.Module]:
    """The parts that are compiled separately: blocks that are called many times, and no code that communicates."""
    if isinstance(module, Tokenizer):
        return [module.encoder, module.decoder]
    if isinstance(module, Trunk):
        return list(module.layers)
    if isinstance(module, PatchDiscriminator):
        return [] if world().size > 1 else [module]
    return [module]


@contextmanager
def uncompiled(*modules: nn.Module) -> Iterator[None]:
    """Inside the block modules run uncompiled: sampling token by token would compile every block for every length."""
    parts = [part for module in modules for part in module.modules() if part._compiled_call_impl is not None]
    compiled = [part._compiled_call_impl for part in parts]
    try:
        for part in parts:
            part._compiled_call_impl = None
        yield
    finally:
        for part, implementation in zip(parts, compiled, strict=True):
            part._compiled_call_impl = implementation
