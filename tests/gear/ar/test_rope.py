"""The 2-D rotary table: what each slot is rotated by."""

from __future__ import annotations

import torch

from gear.ar.rope import rotary_table, rotate


def test_conditioning_slots_are_zeroed_not_left_unrotated():
    table = rotary_table(4, 16, num_cond=3)
    assert table.shape == (3 + 16, 8, 2)
    assert not table[:3].any()
    turned = rotate(torch.randn(2, 19, 3, 16), table)
    assert not turned[:, :3].any()


def test_rows_take_the_first_half_of_the_angles_and_columns_the_second():
    table = rotary_table(4, 16, num_cond=0).unflatten(0, (4, 4))
    assert torch.equal(table[2, 0, :4], table[2, 3, :4])
    assert torch.equal(table[0, 3, 4:], table[2, 3, 4:])
    assert not torch.equal(table[1, 0, :4], table[2, 0, :4])


def test_rotation_keeps_the_length_of_image_tokens():
    x = torch.randn(2, 9, 3, 12)
    turned = rotate(x, rotary_table(3, 12, num_cond=0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_offset_in_the_grid_alone():
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    table = rotary_table(5, 16, num_cond=0)

    def score(query_cell: tuple[int, int], key_cell: tuple[int, int]) -> torch.Tensor:
        (qr, qc), (kr, kc) = query_cell, key_cell
        q_row, k_row = table[[5 * qr + qc]], table[[5 * kr + kc]]
        return (rotate(q, q_row) * rotate(k, k_row)).sum()

    torch.testing.assert_close(score((2, 3), (1, 1)), score((4, 4), (3, 2)))


def test_decoding_rotates_as_training_does():
    x, table = torch.randn(2, 12, 3, 16), rotary_table(3, 16, num_cond=3)
    with torch.no_grad():
        torch.testing.assert_close(rotate(x, table), rotate_with_gradients(x, table))
        q, k = x.split((2, 1), dim=2)  # parts of a projection are not contiguous
        torch.testing.assert_close(torch.cat([rotate(q, table), rotate(k, table)], dim=2), rotate(x, table))


def rotate_with_gradients(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return rotate(x, table)


def test_rotation_is_computed_in_float32_and_cast_back():
    x = torch.randn(1, 9, 2, 8, dtype=torch.bfloat16)
    table = rotary_table(3, 8, num_cond=0)
    assert torch.equal(rotate(x, table), rotate(x.float(), table).to(torch.bfloat16))
