"""The reference's streams, against loops written the way the reference runs: one process after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gear.sampling.draws import multinomial
from gear.sampling.generate import generate, in_eval_mode
from gear.sampling.parity import Parity
from gear.sampling.pixels import to_u8
from gear.sampling.rollout import SamplingOptions, roll_out
from harness.contract.requests import SamplingProtocol
from harness.contract.writer import SampleSetWriter
from tests.gear.sampling.test_generate import tiny_ar, tiny_tokenizer

CPU = torch.device("cpu")
PARITY = Parity(seed=3, num_ranks=2, batch=4)
PROTOCOL = SamplingProtocol(image_size=16, cfg_scale=1.5)


@pytest.fixture(scope="module")
def models():
    return tiny_ar(), tiny_tokenizer()


def reference_run(models, parity: Parity, count: int):
    """Labels and images by index, each process run alone with its own seeds."""
    ar, tokenizer = models
    labels, images = {}, {}
    for rank in range(parity.num_ranks):
        generator = torch.Generator().manual_seed(parity.seed * parity.num_ranks + rank)
        torch.manual_seed(parity.seed + rank)
        for iteration in range(-(-count // parity.step)):
            drawn = torch.randint(0, 5, (parity.batch,), generator=generator)
            tokens = roll_out(ar, drawn, num_tokens=16, options=SamplingOptions(cfg_scale=1.5), draw=multinomial)
            with in_eval_mode(tokenizer), torch.no_grad():
                decoded = to_u8(tokenizer.decode_ids(tokens)).numpy()
            for i in range(parity.batch):
                index = i * parity.num_ranks + rank + iteration * parity.step
                labels[index], images[index] = int(drawn[i]), decoded[i]
    return [labels[i] for i in range(count)], np.stack([images[i] for i in range(count)])


def test_one_process_draws_what_the_reference_draws_with_two(models, tmp_path):
    labels, images_u8 = reference_run(models, PARITY, 13)
    request_set = PARITY.requests(PROTOCOL, count=13, num_classes=5, device=CPU)
    assert request_set.labels == labels
    before = torch.get_rng_state()
    samples = generate(*models, request_set, tmp_path / "out", generator={}, parity=PARITY)
    assert torch.equal(torch.get_rng_state(), before)
    ours = samples.images(range(13)).astype(int)
    assert np.abs(ours - images_u8).max() <= 1  # the decoder runs in other batches here
    assert (ours != images_u8).mean() < 1e-3
    assert samples.manifest.generator["parity"] == {"seed": 3, "num_ranks": 2, "batch": 4}


def test_an_interrupted_run_in_parity_ends_with_the_same_images(models, tmp_path, monkeypatch):
    request_set = PARITY.requests(PROTOCOL, count=24, num_classes=5, device=CPU)
    whole = generate(*models, request_set, tmp_path / "whole", generator={}, parity=PARITY)
    write, written = SampleSetWriter.write, []

    def stop_at_the_second(self, shard, images_u8):
        if written:
            raise KeyboardInterrupt
        written.append(shard.index)
        write(self, shard, images_u8)

    monkeypatch.setattr(SampleSetWriter, "write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        generate(*models, request_set, tmp_path / "cut", generator={}, parity=PARITY)
    monkeypatch.undo()
    assert written == [0]
    again = generate(*models, request_set, tmp_path / "cut", generator={}, parity=PARITY)
    assert again.digest == whole.digest


def test_another_batch_size_or_number_of_processes_is_another_run(models, tmp_path):
    digests = set()
    for batch, num_ranks in ((4, 2), (8, 1), (8, 2)):
        parity = Parity(seed=3, num_ranks=num_ranks, batch=batch)
        request_set = parity.requests(PROTOCOL, count=8, num_classes=5, device=CPU)
        out = tmp_path / f"{batch}-{num_ranks}"
        digests.add(generate(*models, request_set, out, generator={}, parity=parity).digest)
    assert len(digests) == 3
