"""FSDP2: shard a model over the processes, and gather its full state dict.

A checkpoint is the same file whether the run was sharded or not: tensors are gathered when it is written and sharded
again when it is read, so a run may continue with another number of processes, or without sharding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from gear.ar.model import Trunk
from gear.training.processes.distributed import world


def shard(modules: list[nn.Module], device: torch.device, half: torch.dtype | None) -> None:
    """Shard the parameters of `modules` over all processes, in place; they become DTensors.

    An AR model is sharded block by block, so that one block at a time is whole; any other module is one unit. half:
    the type in which blocks are sent, and their gradients are then summed in float32; None: float32 for both.
    """
    mesh = init_device_mesh(device.type, (world().size,))
    policy = MixedPrecisionPolicy(
        param_dtype=half,
        reduce_dtype=None if half is None else torch.float32,
        cast_forward_inputs=False,  # autocast casts them where it should
    )
    for module in modules:
        if isinstance(module, Trunk):
            for block in module.layers:
                fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy)
        if isinstance(module, Trunk):  # what a step calls instead of forward
            for method in ("tap", "next_token_loss"):
                register_fsdp_forward_method(module, method)


def gather_full(tree: Any) -> Any:
    """`tree` with every sharded tensor gathered; all processes take part, and only the main one keeps the tensors."""
    if isinstance(tree, DTensor):
        gathered = tree.full_tensor()
        return gathered.cpu() if world().is_main else None
    if isinstance(tree, Mapping):
        return {key: gather_full(value) for key, value in tree.items()}
    return tree


def shard_like(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """`state` with full tensors sharded like those of the same name in `like`; anything else unchanged."""
    return {key: _cut(value, like.get(key)) for key, value in state.items()}


def shard_optimizer_state(state: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimizer's state dict with its moments sharded like the parameters."""
    per_parameter = {
        index: {name: _cut(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": per_parameter}


def _cut(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
