"""A copy of an AR model that only decodes: the same weights, in the layout that the device multiplies fastest.

On a CPU a decoding step is a handful of products of 16 rows with hundreds of megabytes of weights. Weights are
re-ordered once into the blocks that oneDNN's kernels read, and the rows of a product are treated as the pixels of one
image: for so few rows, oneDNN's 1x1 convolution is a fifth faster than its inner product. It also makes the result of
a row independent of the other rows, which the usual product does not guarantee.

Apart from the products, a step's time goes into the number of calls: layers that read the same rows become one product,
a norm is one call, and dropout is left out.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.ar.blocks import DropPath, RMSNorm, SwiGLU
from gear.ar.model import Trunk

_GEOMETRY = ([0, 0], [1, 1], [1, 1], 1)
"""Of a 1x1 convolution: padding, stride, dilation, groups."""
_PACKED_FOR = 16
"""Number of rows that the weight blocks are chosen for: 8 images with guidance."""
_ROW_STEP = 8
"""Rows are filled up to a multiple of this: for some other counts oneDNN chooses a kernel with other blocks, and
re-orders the weight in every call."""


class PackedLinear(nn.Module):
    """A bias-free Linear in float32 on the CPU, its weight re-ordered for oneDNN. It cannot be saved or moved."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        out_features, in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight.detach().view(out_features, in_features, 1, 1), *_GEOMETRY, [1, in_features, 1, _PACKED_FOR]
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        rows = x.reshape(1, 1, -1, x.shape[-1])
        surplus = -rows.shape[2] % _ROW_STEP
        if surplus:
            rows = F.pad(rows, (0, 0, 0, surplus))
        image = rows.permute(0, 3, 1, 2)  # (1, in, 1, rows), channels last in memory: nothing is copied
        product: Tensor = torch.ops.mkldnn._convolution_pointwise(image, self.packed, None, *_GEOMETRY, "none", [], "")
        if surplus:
            product = product[..., :-surplus]
        return product.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class PackedSwiGLU(nn.Module):
    """A SwiGLU whose two first layers, which read the same rows, are a single packed product."""

    def __init__(self, whole: SwiGLU) -> None:
        super().__init__()
        self.w1_w3 = PackedLinear(torch.cat([whole.w1.weight, whole.w3.weight]))
        self.w2 = PackedLinear(whole.w2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        gate, up = self.w1_w3(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate).mul_(up))


class FusedRMSNorm(nn.Module):
    """RMSNorm in one call. It scales by the weight before casting back, so it equals RMSNorm only in float32."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def for_decoding(ar: Trunk, *, dtype: torch.dtype | None = None, compiled: bool = False) -> Trunk:
    """A copy of `ar` in eval mode, for `prefill` and `decode`; `ar` itself stays as it is.

    It shares the weights with `ar` unless they have to be packed (float32 on a CPU) or converted.

    dtype: of weights and cache; None keeps the weights'.
    compiled: compile each block with torch.compile; all blocks of one kind share what is compiled.
    """
    weight = ar.tok_embeddings.weight
    wanted = weight.dtype if dtype is None else dtype
    # deepcopy reuses what its memo holds: all tensors are shared, unless they are about to change.
    shared = {id(tensor): tensor for tensor in ar.parameters()} if wanted == weight.dtype else {}
    decoder = copy.deepcopy(ar, shared).to(wanted).eval()
    if can_pack(weight.device, wanted):
        for part in ("layers", "norm", "output"):
            setattr(decoder, part, _packed(getattr(decoder, part)))
    if compiled:
        # Every attention length, with each of the two batch sizes, is compiled separately.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for block in decoder.layers:
            block.compile(fullgraph=True, dynamic=False)
    return decoder


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of this device and type can be re-ordered for oneDNN."""
    return device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _packed(module: nn.Module) -> nn.Module:
    """The fastest equivalent of a module in eval mode: another module, or itself with parts replaced."""
    match module:
        case nn.Linear(bias=None):
            return PackedLinear(module.weight)
        case SwiGLU():
            return PackedSwiGLU(module)
        case RMSNorm():
            return FusedRMSNorm(module)
        case nn.Dropout() | DropPath():
            return nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, _packed(child))
    return module
