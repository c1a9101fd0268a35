"""The entropy regulariser: its extremes, its plain form, and its value over several processes."""

from __future__ import annotations

import math

import pytest
import torch

from gear import numerics
from gear.tokenizers import entropy
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms, plain_entropy_terms
from tests.conformance.process_group import run_in_process_group


def of_logits(logits: torch.Tensor) -> Distances:
    """The distances -logits: those to the unit vectors."""
    return Distances(queries=logits, codes=torch.eye(logits.shape[1], dtype=logits.dtype))


def test_indifferent_tokens_have_the_largest_entropy_on_both_counts():
    terms = entropy_terms(of_logits(torch.zeros(6, 8)), ratio=0.5)
    assert terms.sample.item() == pytest.approx(math.log(8), abs=1e-4)
    assert terms.average.item() == pytest.approx(math.log(8), abs=1e-3)
    assert terms.total.item() == pytest.approx(0.0, abs=1e-3)


def test_decided_tokens_that_share_the_codebook_minimise_the_loss():
    terms = entropy_terms(of_logits(torch.eye(8) * 10), ratio=0.5)
    assert terms.sample.item() == pytest.approx(0.0, abs=1e-6)
    assert terms.total.item() == pytest.approx(-0.5 * math.log(8), abs=1e-3)


def test_the_weights_scale_their_own_term():
    affinities = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    terms = entropy_terms(of_logits(affinities), ratio=2.0, temperature=1.0, sample_weight=3.0, batch_weight=0.5)
    torch.testing.assert_close(terms.total, 2.0 * (3.0 * terms.sample - 0.5 * terms.average))


def test_several_codebooks_give_the_mean_of_their_terms():
    affinities = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    together = entropy_terms(of_logits(affinities.flatten(0, 1)), ratio=1.0, temperature=1.0, groups=3)
    alone = [entropy_terms(of_logits(affinities[:, group]), ratio=1.0, temperature=1.0) for group in range(3)]
    torch.testing.assert_close(together.total, torch.stack([terms.total for terms in alone]).mean())


@pytest.mark.parametrize("numbers_at_a_time", [1, 100, 10_000])
def test_in_chunks_every_family_has_the_gradient_of_the_plain_form(tokenizer, pixels, monkeypatch, numbers_at_a_time):
    monkeypatch.setitem(numerics.CHUNK_ELEMENTS, "cpu", numbers_at_a_time)
    tokenizer.double()
    groups = tokenizer.config.codes_per_token

    def gradients(plain: bool) -> dict[str, torch.Tensor]:
        tokenizer.zero_grad()
        distances = tokenizer.encode(pixels.double()).distances
        if plain:
            affinities = -distances.matrix().unflatten(0, (-1, groups))
            plain_entropy_terms(affinities, ratio=0.1, temperature=0.5).total.backward()
        else:
            entropy_terms(distances, ratio=0.1, temperature=0.5, groups=groups).total.backward()
        return {name: p.grad for name, p in tokenizer.named_parameters() if p.grad is not None}

    wanted = gradients(plain=True)
    assert any(gradient.abs().max() > 1e-6 for gradient in wanted.values())
    torch.testing.assert_close(gradients(plain=False), wanted)


def test_two_processes_get_the_gradient_of_one_process_on_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    shares = [torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)]
    whole = torch.cat(shares).requires_grad_()
    alone = entropy_terms(of_logits(whole), ratio=1.0, temperature=0.5)
    alone.total.backward()

    ranks = run_in_process_group(_on_rank, shares)
    averaged = torch.cat([gradient for _, gradient in ranks]) / 2  # DDP's average over processes
    torch.testing.assert_close(averaged, whole.grad)
    for average, _ in ranks:
        torch.testing.assert_close(average, alone.average.detach())


def _on_rank(affinities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    affinities = affinities.clone().requires_grad_()
    terms = entropy_terms(of_logits(affinities), ratio=1.0, temperature=0.5)
    terms.total.backward()
    assert affinities.grad is not None
    return terms.average.detach(), affinities.grad


def test_evaluation_does_not_communicate_with_other_processes(tokenizer, pixels, monkeypatch):
    def refuse(local):
        raise AssertionError("a collective in evaluation would wait for ranks that have no batch left")

    monkeypatch.setattr(entropy, "global_mean", refuse)
    tokenizer.eval()(pixels)
    with pytest.raises(AssertionError, match="collective"):
        tokenizer.train()(pixels)
