"""Roll-outs: what they depend on, and what they do not."""

from __future__ import annotations

import pytest
import torch

from gear.ar import ARConfig, ClassConditionalAR
from gear.sampling.draws import PerImageDraw, most_likely
from gear.sampling.filters import guided
from gear.sampling.rollout import SamplingOptions, Trace, roll_out
from harness.contract.errors import UserError
from harness.contract.requests import SamplingProtocol

SEEDS = [2**64 - 1, 3, 14, 15, 92, 65, 35]
LABELS = [0, 1, 2, 3, 4, 0, 1]


@pytest.fixture(scope="module")
def ar() -> ClassConditionalAR:
    torch.manual_seed(0)
    model = ClassConditionalAR(
        ARConfig(dim=32, n_layer=2, n_head=4, multiple_of=16, vocab_size=64, block_size=16, num_classes=5, init_std=0.2)
    )
    torch.nn.init.normal_(model.output.weight, std=0.3)
    return model.eval()


OPTIONS = SamplingOptions(cfg_scale=1.5, temperature=0.9, top_k=40, top_p=0.95)


def sampled(ar, positions, options=OPTIONS):
    """Tokens of the images at `positions` of the lists above, drawn as one batch."""
    draw = PerImageDraw([SEEDS[i] for i in positions], 16)
    return roll_out(ar, torch.tensor([LABELS[i] for i in positions]), num_tokens=16, options=options, draw=draw)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_do_not_depend_on_the_batch_size(ar, batch_size):
    whole = sampled(ar, range(7))
    parts = [sampled(ar, range(7)[start : start + batch_size]) for start in range(0, 7, batch_size)]
    assert torch.equal(torch.cat(parts), whole)


def test_tokens_do_not_depend_on_the_order_in_the_batch(ar):
    order = [4, 2, 6, 0, 1, 5, 3]
    assert torch.equal(sampled(ar, order), sampled(ar, range(7))[order])


def test_tokens_do_not_depend_on_the_global_generator(ar):
    torch.manual_seed(1)
    first = sampled(ar, range(3))
    torch.manual_seed(2)
    assert torch.equal(first, sampled(ar, range(3)))


def test_another_seed_draws_other_tokens(ar):
    options = SamplingOptions()
    rows = roll_out(ar, torch.tensor([1, 1]), num_tokens=16, options=options, draw=PerImageDraw([1, 2], 16))
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
def test_a_single_token_can_be_drawn(ar, cfg_scale):
    options = SamplingOptions(cfg_scale=cfg_scale)
    tokens = roll_out(ar, torch.tensor([0, 1]), num_tokens=1, options=options, draw=most_likely)
    assert tokens.shape == (2, 1)


@pytest.mark.parametrize("cfg_scale", [0.0, 0.5, 1.0])
def test_a_scale_of_one_or_less_is_no_guidance(ar, cfg_scale):
    plain = sampled(ar, range(3), SamplingOptions())
    assert torch.equal(sampled(ar, range(3), SamplingOptions(cfg_scale=cfg_scale)), plain)


@pytest.mark.parametrize(
    ("interval", "guided_tokens"), [(-1.0, 6), (-3.0, 6), (-0.5, 1), (0.0, 2), (0.5, 2), (3.0, 5), (99.0, 6)]
)
def test_the_interval_says_how_many_tokens_are_guided(interval, guided_tokens):
    options = SamplingOptions(cfg_scale=2.0, cfg_interval=interval)
    assert [options.guides_token(index) for index in range(6)] == [index < guided_tokens for index in range(6)]


def test_guided_logits_equal_those_of_two_full_forwards(ar):
    labels, trace = torch.tensor([2, 4]), Trace()
    options = SamplingOptions(cfg_scale=3.0, cfg_interval=5)
    tokens = roll_out(ar, labels, num_tokens=16, options=options, draw=PerImageDraw([1, 2], 16), trace=trace)
    with torch.no_grad():
        conditional, null = (ar(tokens[:, :-1], row)[0] for row in (labels, torch.full_like(labels, 5)))
    combined = guided(torch.cat([conditional, null]), 3.0)
    combined[:, 7:] = conditional[:, 7:]
    torch.testing.assert_close(torch.stack(trace.logits, dim=1), combined, rtol=1e-4, atol=1e-4)


def test_options_come_from_the_benchmarks_protocol():
    protocol = SamplingProtocol(image_size=256, cfg_scale=1.75, cfg_interval=3, temperature=0.9, top_k=7, top_p=0.8)
    assert SamplingOptions.of(protocol) == SamplingOptions(
        cfg_scale=1.75, cfg_interval=3.0, temperature=0.9, top_k=7, top_p=0.8
    )


def test_training_continues_after_a_roll_out(ar):
    sampled(ar, range(2))
    logits, _ = ar(torch.zeros(2, 15, dtype=torch.long), torch.tensor([0, 1]))
    logits.sum().backward()
    assert ar.tok_embeddings.weight.grad is not None
    ar.zero_grad()


def test_logits_that_are_not_finite_are_reported(ar):
    class Broken(ClassConditionalAR):
        def decode(self, *args):
            return super().decode(*args) * torch.nan

    broken = Broken(ar.config).eval()
    with pytest.raises(UserError, match="not finite"):
        roll_out(broken, torch.tensor([0]), num_tokens=4, options=SamplingOptions(), draw=PerImageDraw([1], 4))
