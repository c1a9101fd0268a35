"""Guidance, temperature, top-k and top-p."""

from __future__ import annotations

import pytest
import torch

from gear.sampling.filters import filtered_probs, guided

LOGITS = torch.tensor([[2.0, 1.0, 1.0, 0.0], [0.0, 3.0, -1.0, 3.0]])


def test_no_filter_is_a_softmax():
    torch.testing.assert_close(filtered_probs(LOGITS), LOGITS.softmax(-1))


def test_temperature_zero_is_greedy_without_overflow():
    assert filtered_probs(LOGITS[:1], temperature=0.0).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("top_k", "kept"), [(1, [1, 2]), (2, [3, 2]), (3, [3, 3]), (9, [4, 4])])
def test_all_tokens_tied_with_the_kth_survive_top_k(top_k, kept):
    assert (filtered_probs(LOGITS, top_k=top_k) > 0).sum(dim=-1).tolist() == kept


def test_top_p_keeps_the_token_that_crosses_p():
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    assert filtered_probs(probs.log(), top_p=0.6).tolist()[0] == pytest.approx([0.625, 0.375, 0.0, 0.0])


def test_the_best_token_survives_even_p_zero():
    assert (filtered_probs(LOGITS[:1], top_p=0.0) > 0).tolist() == [[True, False, False, False]]


def test_top_p_counts_the_mass_that_top_k_left():
    probs = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    # Of the best two, the first holds 0.57: enough for p = 0.5, which it would not be among all four.
    assert filtered_probs(probs.log(), top_k=2, top_p=0.5).tolist()[0] == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_guidance_extrapolates_from_null_to_conditional():
    both = torch.tensor([[1.0, 2.0], [0.5, 4.0]])
    assert guided(both, 3.0).tolist() == [[2.0, -2.0]]
    assert guided(both, 1.0).tolist() == [[1.0, 2.0]]
