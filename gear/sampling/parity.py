"""The reference's own random numbers, to reproduce a published run token for token.

There, images are not seeded: each process draws its labels, and its tokens, from its own two streams, batch after
batch. So the labels, the batch size and the number of processes decide every image, and an interrupted run repeats
everything it had done. Here one process goes through the streams of all processes in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gear.numerics import power_of_two_threads
from gear.sampling.draws import multinomial
from gear.sampling.engine import Engine
from gear.sampling.rollout import RollOut
from harness.contract.progress import Progress
from harness.contract.requests import Request, RequestSet, SamplingProtocol, class_requests
from harness.contract.samples import Form, SampleSet
from harness.contract.writer import SampleSetWriter

DRAW = "torch-multinomial-global"
"""The value of `draw` in the identity of such a sample set."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The run to reproduce."""

    seed: int = 0
    num_ranks: int = 1
    """Its processes."""
    batch: int = 32
    """Its images per process and iteration."""

    @property
    def step(self) -> int:
        """Images of one iteration over all processes, G."""
        return self.batch * self.num_ranks

    def labels(self, count: int, num_classes: int, device: torch.device) -> list[int]:
        """The random labels of the first `count` images: process r draws from a generator seeded seed * W + r."""
        iterations = -(-count // self.step)
        streams = []
        for rank in range(self.num_ranks):
            generator = torch.Generator(device).manual_seed(self.seed * self.num_ranks + rank)
            draws = [
                torch.randint(0, num_classes, (self.batch,), generator=generator, device=device)
                for _ in range(iterations)
            ]
            streams.append(torch.stack(draws))
        # (W, iterations, n) -> image i of iteration t of process r is number i * W + r + t * G.
        labels: list[int] = torch.stack(streams).permute(1, 2, 0).flatten()[:count].tolist()
        return labels

    def requests(self, protocol: SamplingProtocol, *, count: int, num_classes: int, device: torch.device) -> RequestSet:
        """Class-conditional requests with those labels."""
        known = class_requests("gear-sample", 1, protocol, count=count, num_classes=num_classes, run_seed=self.seed)
        labels = self.labels(count, num_classes, device)
        rows = (replace(request, label=label) for request, label in zip(known, labels, strict=True))
        return RequestSet(benchmark=known.benchmark, version=known.version, protocol=protocol, requests=rows)


def generate_in_parity(
    engine: Engine,
    request_set: RequestSet,
    out_dir: Path,
    parity: Parity,
    *,
    generator: Mapping[str, Any],
    form: Form = "npz",
) -> SampleSet:
    """As `generate`, with the reference's streams instead of the requests' seeds. Shards are its iterations."""
    engine.check(request_set)
    identity = {**generator, "draw": DRAW, "parity": asdict(parity), **engine.identity}
    writer = SampleSetWriter(out_dir, request_set, identity, form, parity.step)
    missing = writer.missing()
    if missing:
        streams = _Streams(parity, engine.device, shift=_shift(request_set, parity))
        progress = Progress(len(request_set), "images")
        for number, start in enumerate(range(0, len(request_set), parity.step)):
            batch = request_set.requests[start : start + parity.step]
            images_u8 = engine.images_u8(_iteration(engine, batch, parity, streams))
            shard = next((shard for shard in missing if shard.index == number), None)
            if shard is not None:
                writer.write(shard, np.ascontiguousarray(images_u8))
            progress.advance(len(batch))
    engine.conditions.report()
    return writer.finish()


def _shift(request_set: RequestSet, parity: Parity) -> int:
    """Seed of the first process; each next one's is higher by 1. The reference's differs between labels and prompts."""
    return parity.seed if request_set.is_class_conditional else parity.seed * parity.num_ranks


def _iteration(engine: Engine, requests: Sequence[Request], parity: Parity, streams: _Streams) -> Tensor:
    """Tokens (n, N) of one iteration's requests: process r has every W-th from r on."""
    tokens = torch.zeros(len(requests), engine.num_tokens, dtype=torch.int64, device=engine.device)
    for rank in range(parity.num_ranks):
        mine = list(requests[rank :: parity.num_ranks])
        if not mine:
            continue
        # Labels come in whole batches, of which the last images may be dropped; prompts end in a smaller one.
        size = parity.batch if mine[0].label is not None else len(mine)
        with streams.of(rank):
            drawn = _roll_out(engine, [*mine, *[mine[-1]] * (size - len(mine))])
        tokens[rank :: parity.num_ranks] = drawn[: len(mine)]
    return tokens


def _roll_out(engine: Engine, requests: Sequence[Request]) -> Tensor:
    run = RollOut(
        engine.ar, images=len(requests), num_tokens=engine.num_tokens, options=engine.options, draw=multinomial
    )
    with power_of_two_threads():
        return run(*engine.prefixes_of(requests))


class _Streams:
    """The global generators of the device, one per process of the reference."""

    def __init__(self, parity: Parity, device: torch.device, shift: int) -> None:
        self._device = device
        self._states = {
            rank: torch.Generator(device).manual_seed(shift + rank).get_state() for rank in range(parity.num_ranks)
        }

    @contextmanager
    def of(self, rank: int) -> Iterator[None]:
        """Inside the block the global generator is that of process `rank`; afterwards it is restored."""
        on_gpu = self._device.type == "cuda"
        outside = torch.cuda.get_rng_state(self._device) if on_gpu else torch.get_rng_state()
        self._set(self._states[rank])
        try:
            yield
            self._states[rank] = torch.cuda.get_rng_state(self._device) if on_gpu else torch.get_rng_state()
        finally:
            self._set(outside)

    def _set(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
