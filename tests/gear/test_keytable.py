"""Renaming by a table: rules in order, `*`, concatenating and splitting, what is dropped and why."""

from __future__ import annotations

import torch

from gear.keytable import Dropped, KeyTable

ONE, TWO, THREE = (torch.tensor([float(value)]) for value in (1, 2, 3))


def test_a_star_inside_stands_for_one_part_and_at_the_end_for_all_the_rest() -> None:
    table = KeyTable({"layer.*.norm.*": "blocks.*.norm1.*"})
    renamed, _ = table.rename({"layer.11.norm.weight": ONE, "layer.1.2.norm.weight": TWO, "layer.3.norm": THREE})
    assert renamed == {"blocks.11.norm1.weight": ONE, "layer.1.2.norm.weight": TWO, "layer.3.norm": THREE}


def test_the_first_rule_that_fits_counts() -> None:
    table = KeyTable({"norms.3.*": "norm.*", "norms.*": Dropped("shallower")})
    renamed, dropped = table.rename({"norms.3.weight": ONE, "norms.2.weight": TWO, "norms.30.weight": THREE})
    assert renamed == {"norm.weight": ONE}
    assert dropped == {"norms.*": "2 tensors: shallower"}


def test_several_keys_are_concatenated_in_the_tables_order_whatever_the_files() -> None:
    table = KeyTable({("*.q.*", "*.k.*", "*.v.*"): "*.qkv.*"})
    renamed, _ = table.rename({"0.v.weight": THREE, "0.q.weight": ONE, "1.q.weight": ONE, "0.k.weight": TWO})
    assert list(renamed) == ["0.qkv.weight"], "1 has no k and v, so the strict load will miss it"
    assert renamed["0.qkv.weight"].tolist() == [1.0, 2.0, 3.0]


def test_a_key_is_split_into_equal_parts_of_which_some_may_be_dropped() -> None:
    table = KeyTable({"*.qkv.bias": ("*.q", Dropped("masked"), "*.v")})
    renamed, dropped = table.rename({"0.qkv.bias": torch.arange(6)})
    assert {key: value.tolist() for key, value in renamed.items()} == {"0.q": [0, 1], "0.v": [4, 5]}
    assert dropped == {"*.qkv.bias": "1 tensors: masked"}
