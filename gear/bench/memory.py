"""How much of a machine's memory drawing takes: what a step may have before it is ended, and what others keep free.

Computed from the weights' sizes, the shape of the AR model, the precision, the tile and the number of processes. On a
CPU, measured with random weights, VQ-16, 256 px, 8 images: LlamaGen-S took 2.6 GiB, B 3.5, and 3.6 with guidance, L 6.8
with guidance; such a step is given 7, 7, 7 and 9. Reconstructing 32 images took 7.2, and is given 12. What a process
takes of the machine when its model is on a GPU has not been measured, and is meant to be generous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contract.requests import SamplingProtocol
from harness.contract.walk import walk

if TYPE_CHECKING:
    from gear.ar.config import TrunkConfig
    from gear.foreign import StateDict

ADVICE = "Give it more: --memory GB."
SAMPLING_ADVICE = (
    "Give it more: --memory GB; or let it need less: fewer processes (--gpus N), fewer images at once (--draw tile=N)."
)

UNKNOWN_GB = 8.0
"""Of a step whose models are not here yet."""

GIB = 2**30
_TILE = 8
"""Images computed together on a CPU, see `gear.sampling.engine`."""
_MARGIN = 1.1
_ASSEMBLING = GIB // 2
"""To put the shards together at the end."""
_LIBRARIES = {"cpu": GIB, "cuda": 4 * GIB}
"""Of a process before it has a model. On a GPU the driver's and PyTorch's libraries, and what compiles kernels."""
_SHARDS = 3 * (64 << 20)
_PREFIXES = 256 << 20
"""Conditions that are kept, see `gear.sampling.engine`."""
_DECODER_BYTES_PER_PIXEL = 4096
"""Of the tokenizer's widest layers, in float32."""
_DECODED_AT_ONCE = 1 << 18
"""Pixels, on a CPU, see `gear.sampling.engine`."""
_RECONSTRUCTED_AT_ONCE = 32
"""Images, see `gear.reconstruct`."""
_COPIES_OF_WEIGHTS = 2
"""The file's pages, and the model."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the models of a drawing need, in bytes."""

    ar: int
    """Weights of the AR model in float32; 0 where nothing is drawn."""
    tokenizer: int
    text_encoder: int = 0
    slot: int = 0
    """Keys and values of one slot of one row in float32."""
    slots: int = 0
    """Conditioning and image tokens of a row."""

    def on_cpu(self, rows: int, bytes_per_number: int, pixels: int) -> int:
        """Of one process that computes on the CPU.

        Args:
            rows: sequences at once; two for an image with guidance.
            bytes_per_number: of the AR model's weights and cache.
            pixels: that the tokenizer decodes at once.
        """
        share = bytes_per_number / 4
        work = rows * self.slots * self.slot * share + pixels * _DECODER_BYTES_PER_PIXEL + self.ar * share
        return self._fixed("cpu") + round(work)

    def on_gpu(self) -> int:
        """Of the machine, for one process whose models are on a GPU: the weights pass through once."""
        return self._fixed("cuda")

    def _fixed(self, device: str) -> int:
        weights = self.ar + self.tokenizer + self.text_encoder
        return _LIBRARIES[device] + _SHARDS + _PREFIXES + _COPIES_OF_WEIGHTS * weights


def sampling_memory_gb(needs: Needs, options: Mapping[str, str], protocol: SamplingProtocol, processes: int) -> float:
    """GiB for `gear sample`, whole; the larger of `processes` on GPUs and one on the CPU, since either may happen.

    Args:
        needs: of the models.
        options: of `gear sample`; dtype and tile count.
        protocol: guidance draws two rows per image.
        processes: one per GPU.
    """
    tile = int(options["tile"]) if options.get("tile", "").isdigit() else _TILE
    rows = tile * (2 if protocol.cfg_scale > 1 else 1)
    pixels = max(_DECODED_AT_ONCE, protocol.image_size**2)
    alone = needs.on_cpu(rows, 2 if options.get("dtype") == "bf16" else 4, pixels)
    return _whole(max(alone, processes * needs.on_gpu()))


def reconstruction_memory_gb(tokenizer: int, image_size: int) -> float:
    """GiB for `gear pairs`, which is one process. tokenizer: bytes of its weights in float32."""
    needs = Needs(ar=0, tokenizer=tokenizer)
    return _whole(max(needs.on_cpu(0, 4, _RECONSTRUCTED_AT_ONCE * image_size**2), needs.on_gpu()))


def needs_of_models(ar: TrunkConfig, ar_weights: StateDict, tokenizer_weights: StateDict) -> Needs:
    """What an AR model and a tokenizer need, from their weights and the AR model's shape."""
    slot = 4 * 2 * ar.n_layer * ar.num_kv_heads * ar.head_dim
    return Needs(ar=bytes_of(ar_weights), tokenizer=bytes_of(tokenizer_weights), slot=slot, slots=ar.max_sequence)


def bytes_of(weights: StateDict) -> int:
    """Of one model's weights in float32."""
    return sum(4 * tensor.numel() for tensor in weights.values())


def bytes_in(path: Path | None) -> int:
    """Of a file, or of all files of a folder; 0 where there is none."""
    if path is None:
        return 0
    if path.is_dir():
        return sum((path / name).stat().st_size for name in walk(path, error=None))
    return path.stat().st_size if path.exists() else 0


def _whole(num_bytes: int) -> float:
    return float(math.ceil(_MARGIN * (num_bytes + _ASSEMBLING) / GIB))
