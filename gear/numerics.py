"""Choices of precision, memory layout and chunk size that several modules share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Elements of a (rows, codes) matrix held at a time: 8 MB for a CPU's cache, 256 MB to keep a GPU busy (float32).

Results do not depend on it beyond rounding.
"""


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is when it is wider (float64 is how the conformance cases are judged)."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def in_layout(maps: Tensor, layout: torch.memory_format | None) -> Tensor:
    """Maps (B, channels, height, width) in a memory layout; None chooses it: channels last on a GPU.

    Tensor cores read channels last without a transposition. On a CPU the backward pass was slower that way (1.6 times,
    VQ-16 at 256 pixels). A convolution's output has the layout of its input, so one call in front of a network is
    enough; weights, and with them optimizers and checkpoints, keep their own.
    """
    if layout is None:
        layout = torch.channels_last if maps.is_cuda else torch.contiguous_format
    return maps.contiguous(memory_format=layout)


def row_chunks(num_rows: int, row_elements: int, device: torch.device, *, multiple: int = 1) -> Iterator[slice]:
    """Consecutive slices that cover `num_rows` rows of a matrix too large to hold; all but the last have one length.

    multiple: rows that belong together (the code groups of a token) stay in one slice.
    """
    most = CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"]) // (row_elements * multiple)
    step = max(1, most) * multiple
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Inside the block matrix products keep the precision of their operands: no autocast, no TF32.

    A soft read-out divides distances by temperatures down to 0.005: a product rounded to 10 bits would change its
    logits by several tenths, and in bfloat16 several per cent of the tokens have two codes at exactly the same
    distance.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        matmul.allow_tf32 = False
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.allow_tf32 = before


@contextmanager
def power_of_two_threads() -> Iterator[None]:
    """Inside the block this thread computes with the largest power of two of CPU threads that it may use.

    In element-wise operations such as GELU, PyTorch computes the last numbers of a thread's share differently if the
    share is not a multiple of eight numbers. With a power of two it is, and 1, 2 and 4 threads agree.
    """
    with cpu_threads(1 << (torch.get_num_threads().bit_length() - 1)):
        yield


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Inside the block this thread computes with `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
