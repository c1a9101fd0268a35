"""The entropy regulariser of a tokenizer, forward and backward: chunked against plain."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial

import click
import torch
from rich.console import Console
from torch import Tensor

from benches.measure import peak_memory, print_comparison, side_by_side
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms, plain_entropy_terms

PLAIN_MATRICES = 6
"""(tokens x codes) float32 matrices that the plain form holds at its peak, about; used to see whether it fits."""


@click.command()
@click.option("--tokens", default=8192, show_default=True, help="Tokens of a batch: 32 images of 256 pixels.")
@click.option("--codes", default=16_384, show_default=True, help="Entries of the codebook.")
@click.option("--dim", default=8, show_default=True, help="Dimensions of a code: 8 for VQ, 14 for LFQ, 256 for IBQ.")
@click.option("--repeats", default=3, show_default=True, help="Timed turns of each form, after one to warm up.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def bench(tokens: int, codes: int, dim: int, repeats: int, device: str) -> None:
    """Entropy terms and gradients: time and memory, ours and plain.

    Where the plain form would not fit into memory, both run on fewer tokens.

    \b
    python scripts/bench.py entropy                              # VQ-16 at batch 32
    python scripts/bench.py entropy --dim 256 --tokens 2048      # IBQ-16 at batch 8
    """
    fitting = _fitting(tokens, codes, device)
    if fitting < tokens:
        Console().print(f"the plain form needs more memory for {tokens} tokens than is free; measuring {fitting}.")
    prepare = {form: partial(_prepare, form, fitting, codes, dim, device) for form in _FORMS}
    memory = {form: peak_memory(prepared, device).growth for form, prepared in prepare.items()}
    wait = torch.cuda.synchronize if device == "cuda" else None
    timings = side_by_side({form: run() for form, run in prepare.items()}, repeats=repeats, synchronize=wait)
    title = f"entropy terms and gradients, {fitting} tokens x {codes} codes of {dim} dimensions, {device}"
    rates = {form: f"{fitting / timing.median_s:,.0f} tokens/s" for form, timing in timings.items()}
    print_comparison(title, timings, baseline="plain", memory_mib=memory, rates=rates)
    difference = _largest_difference(prepare)
    Console().print(f"largest difference of the gradients: {difference:.1e} of the largest gradient")


def _plain(distances: Distances) -> Tensor:
    return plain_entropy_terms(-distances.matrix(), ratio=0.05).total


def _chunked(distances: Distances) -> Tensor:
    return entropy_terms(distances, ratio=0.05).total


_FORMS: dict[str, Callable[[Distances], Tensor]] = {"plain": _plain, "chunked": _chunked}


def _prepare(form: str, tokens: int, codes: int, dim: int, device: str) -> Callable[[], tuple[Tensor, ...]]:
    """Unit vectors as in VQ, and a call that computes the terms and the gradients of both."""
    generator = torch.Generator().manual_seed(0)
    rows, entries = (
        torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1).to(device).requires_grad_()
        for count in (tokens, codes)
    )
    distances = Distances(queries=rows, codes=entries, squared=True)
    return lambda: torch.autograd.grad(_FORMS[form](distances), (rows, entries))


def _largest_difference(prepare: Mapping[str, Callable[[], Callable[[], tuple[Tensor, ...]]]]) -> float:
    plain, chunked = (prepare[form]()() for form in ("plain", "chunked"))
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(plain, chunked, strict=True))


def _fitting(tokens: int, codes: int, device: str) -> int:
    """The largest power-of-two share of `tokens` at which the plain form takes at most half of the free memory."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = free / 2 / (4 * codes * PLAIN_MATRICES)
    return tokens if most >= tokens else max(1, tokens >> math.ceil(math.log2(tokens / max(1.0, most))))
