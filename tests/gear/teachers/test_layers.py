"""Patch features of any block, and position tables for another grid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gear.teachers.layers import FINAL_LAYER, patch_features, resample_position_table


class Doubling(nn.Module):
    """Returns a tuple, as some vision transformers' blocks do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 2 * x, None


class Encoder(nn.Module):
    """Three doubling blocks, then minus as the final norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Doubling() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x, _ = block(x)
        return -x


@pytest.mark.parametrize(("layer", "factor"), [(1, 2), (2, 4), (3, 8), (FINAL_LAYER, -8)])
def test_a_layer_is_its_blocks_output_without_special_tokens(layer, factor):
    encoder, x = Encoder(), torch.randn(2, 7, 4)
    patches = patch_features(encoder, list(encoder.blocks), x, layer=layer, num_special=3)
    assert torch.equal(patches, factor * x[:, 3:])


def test_no_hook_is_left_even_when_the_network_fails():
    encoder = Encoder()
    patch_features(encoder, list(encoder.blocks), torch.zeros(1, 3, 2), layer=2, num_special=1)
    encoder.blocks[2] = nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        patch_features(encoder, list(encoder.blocks), torch.zeros(1, 3, 2), layer=2, num_special=1)
    assert not any(block._forward_hooks for block in encoder.blocks)


@pytest.mark.parametrize("layer", [0, 4, -2])
def test_a_layer_that_does_not_exist_is_refused(layer):
    encoder = Encoder()
    with pytest.raises(ValueError, match="blocks 1 to 3"):
        patch_features(encoder, list(encoder.blocks), torch.zeros(1, 3, 2), layer=layer, num_special=1)


def test_a_block_that_never_runs_is_reported():
    encoder = Encoder()
    with pytest.raises(ValueError, match="does not run its block 1"):
        patch_features(encoder, [Doubling()], torch.zeros(1, 3, 2), layer=1, num_special=0)


def test_resampling_keeps_special_rows_and_the_mean_of_a_flat_grid():
    table = torch.cat([torch.tensor([[[7.0], [8.0]]]), torch.ones(1, 9, 1)], dim=1)
    resampled = resample_position_table(table, 5, num_special=2)
    assert resampled.shape == (1, 27, 1)
    assert resampled[0, :2, 0].tolist() == [7.0, 8.0]
    torch.testing.assert_close(resampled[:, 2:], torch.ones(1, 25, 1))


def test_the_same_grid_is_unchanged_and_one_that_is_not_square_is_refused():
    table = torch.randn(1, 10, 2)
    assert resample_position_table(table, 3) is table
    with pytest.raises(ValueError, match="square"):
        resample_position_table(table, 3, num_special=2)
