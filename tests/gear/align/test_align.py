"""Projectors, the alignment loss and the normalisation of its targets."""

from __future__ import annotations

import pytest
import torch

from gear.align import Projectors, alignment_loss, spatial_norm


def test_perfect_alignment_is_minus_one_and_does_not_depend_on_length():
    z = torch.randn(2, 5, 7)
    assert alignment_loss([3.0 * z], [z]).item() == pytest.approx(-1.0)
    assert alignment_loss([-z], [z]).item() == pytest.approx(1.0)


def test_every_teacher_counts_the_same_whatever_its_width():
    narrow, wide = torch.randn(2, 5, 3), torch.randn(2, 5, 300)
    assert alignment_loss([narrow, -wide], [narrow, wide]).item() == pytest.approx(0.0, abs=1e-6)


def test_an_all_zero_target_adds_zero_and_no_gradient():
    p, z = torch.randn(1, 2, 4, requires_grad=True), torch.randn(1, 2, 4)
    z[0, 1] = 0.0
    alignment_loss([p], [z]).backward()
    assert not p.grad[0, 1].any()
    assert p.grad[0, 0].any()


def test_half_precision_predictions_are_compared_in_float32():
    p, z = torch.randn(2, 5, 64).bfloat16(), torch.randn(2, 5, 64)
    assert alignment_loss([p], [z]).item() == pytest.approx(alignment_loss([p.float()], [z]).item(), abs=1e-7)


@pytest.mark.parametrize("targets", [[torch.zeros(1, 4, 3)], [], [torch.zeros(1, 2, 3)] * 2])
def test_predictions_that_do_not_match_their_targets_are_refused(targets):
    with pytest.raises(ValueError, match="do not match teacher patches"):
        alignment_loss([torch.zeros(1, 2, 3)], targets)


def test_projectors_have_one_mlp_per_teacher_under_the_published_keys():
    projectors = Projectors(8, 16, [3, 5])
    shapes = {key: tuple(tensor.shape) for key, tensor in projectors.state_dict().items()}
    assert shapes["projs.0.0.weight"] == (16, 8)
    assert shapes["projs.1.2.bias"] == (16,)
    assert shapes["projs.1.4.weight"] == (5, 16)
    assert len(shapes) == 12
    assert [tuple(p.shape) for p in projectors(torch.randn(2, 4, 8))] == [(2, 4, 3), (2, 4, 5)]


def test_demeaning_takes_a_share_of_the_mean_of_each_channel_and_sample():
    z = torch.randn(2, 6, 3) + 5.0
    normed = spatial_norm(z, "demean", alpha=0.25)
    torch.testing.assert_close(normed.mean(dim=1), 0.75 * z.mean(dim=1))


def test_the_z_score_has_unit_spread_over_tokens():
    normed = spatial_norm(4.0 * torch.randn(2, 50, 3), "zscore")
    torch.testing.assert_close(normed.std(dim=1), torch.ones(2, 3))


def test_no_normalisation_returns_the_features_themselves():
    z = torch.randn(1, 2, 3)
    assert spatial_norm(z, "none") is z


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="none, demean, zscore"):
        spatial_norm(torch.zeros(1, 2, 3), "layernorm")
