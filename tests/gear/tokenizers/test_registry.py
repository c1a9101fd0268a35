"""The registry of tokenizer families, which the rest of gear uses instead of naming families."""

from __future__ import annotations

import pytest

from gear.tokenizers import FAMILIES, TokenizerConfig, register
from gear.tokenizers.checkpoints import tokenizer_keys
from gear.tokenizers.recognise import matching_families, recognise_tokenizer
from tests.gear.tokenizers.conftest import TINY, tiny


def test_a_state_dict_matches_its_own_family_and_no_other_but_lfq_and_glfq() -> None:
    for name in FAMILIES:
        found = {family.name for family in matching_families(tiny(name).state_dict())}
        assert found == ({"lfq", "glfq"} if name in ("lfq", "glfq") else {name})


def test_a_family_is_told_by_its_tensors_and_the_settings_of_its_training() -> None:
    for name, config in TINY.items():
        settings = {"entropy_num_groups": 2} if name == "glfq" else {}
        recognised = recognise_tokenizer(tiny(name).state_dict(), settings=settings)
        assert (type(recognised), recognised.num_codes) == (type(config), config.num_codes)


def test_a_family_drops_what_its_own_checkpoints_hold_and_nothing_of_others() -> None:
    """A codebook is a constant in LFQ's files; in a family that learns one under that name it would be a weight."""
    lfq, vq = tiny("lfq").state_dict(), tiny("vq").state_dict()
    for state, dropped in ((lfq, True), (vq, False)):
        state["quantize.codebook"] = next(iter(vq.values()))
        kept, _ = tokenizer_keys(state).rename(state)
        assert ("quantize.codebook" not in kept) == dropped


def test_a_name_can_be_registered_once() -> None:
    with pytest.raises(ValueError, match="a tokenizer family named 'vq' already exists"):
        register(FAMILIES["vq"])


def test_fields_that_weight_losses_are_not_part_of_an_architecture() -> None:
    for config in TINY.values():
        plain = TokenizerConfig.from_dict({**config.to_dict(), "entropy_loss_ratio": 7.0, "commit_loss_beta": 7.0})
        assert plain != config
        assert plain.architecture() == config.architecture()
        assert set(config.to_dict()) - set(config.architecture()) == config.loss_fields
