"""A copy of an AR model that only decodes: the same weights, held the way the device multiplies fastest.

On a CPU a decoding step is a handful of products of 16 rows with hundreds of megabytes of weights. Re-ordered once
into the blocks that oneDNN's kernels read, they run about one and a half times as fast as row by row. It also makes the
result of a row independent of the rows beside it, which the usual product does not promise.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gear.ar.model import Trunk


class PackedLinear(nn.Module):
    """A bias-free Linear in float32 on the CPU, its weight re-ordered for oneDNN. It cannot be saved or moved."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return product


def for_decoding(ar: Trunk, *, dtype: torch.dtype | None = None, compiled: bool = False) -> Trunk:
    """A copy of `ar` in eval mode, for `prefill` and `decode`; `ar` itself stays as it is.

    It shares the weights with `ar` unless they have to be packed (float32 on a CPU) or converted.

    dtype: of weights and cache; None keeps the weights'.
    compiled: compile each block with torch.compile; all blocks of one kind share what is compiled.
    """
    weight = ar.tok_embeddings.weight
    wanted = weight.dtype if dtype is None else dtype
    # What deepcopy finds in its memo it takes as it is: all tensors are shared, unless they are about to change.
    shared = {id(tensor): tensor for tensor in ar.parameters()} if wanted == weight.dtype else {}
    decoder = copy.deepcopy(ar, shared).to(wanted).eval()
    if can_pack(weight.device, wanted):
        _pack(decoder.layers)
        decoder.output = PackedLinear(decoder.output.weight)  # type: ignore[assignment]
    if compiled:
        # Attention over every length and both sizes of the batch is a variant of its own.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for block in decoder.layers:
            block.compile(fullgraph=True, dynamic=False)
    return decoder


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of this kind can be held as oneDNN wants them."""
    return device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _pack(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child.weight))
        else:
            _pack(child)
