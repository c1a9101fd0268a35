"""To the hub layout and back: the same bits, and a folder with a complete model card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner

from gear.ar.config import ar_config
from gear.ar.model import ClassConditionalAR
from gear.cli import main
from gear.convert import to_hub, to_reference
from gear.foreign import read_weights
from gear.weights import PARTS, describe, load_ar, load_tokenizer, open_model
from harness.contract.errors import EnvironmentFailure, UserError
from tests.gear import tiny
from tests.gear.small_models import ARS, TOKENIZERS, gear_content, preset, weights


@pytest.fixture
def content() -> dict[str, Any]:
    """A file of the reference's end-to-end stage."""
    return gear_content()


def gear(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a gear command run in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape)
        assert raw(ours[key]) == raw(value), key


def raw(value: torch.Tensor) -> bytes:
    return value.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("kind", ARS)
@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_round_trip_gives_the_same_bits(family, kind, tmp_path):
    """Every family, both kinds of AR model, live and averaged weights, every other part; settings and steps too."""
    content = gear_content(family, kind)
    content["vq"]["decoder.conv_out.bias"][:2] = torch.tensor([float("nan"), -0.0])
    content["ema"] = {key: value.bfloat16() for key, value in content["ema"].items()}
    model = open_model(saved(content, tmp_path / "0000012.pt"), preset=preset(family, kind))
    folder = to_hub(model, tmp_path / "hub")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", *(f"{part}.safetensors" for part in PARTS if part in content)]
    )
    back = read_weights(to_reference(open_model(folder), tmp_path / "back.pt"))
    for part in content.keys() & set(PARTS):
        assert_same_bits(back[part], content[part])
    assert content["args"].items() <= back["args"].items() and back["steps"] == 12
    again = open_model(folder)
    assert (again.tokenizer_config, again.ar_config()) == (TOKENIZERS[family], ARS[kind])
    if kind == "t2i":
        assert torch.equal(again.null_caption().features, content["null_caption"]["features"])


@pytest.mark.parametrize("ema", [True, False])
def test_the_folder_loads_like_the_file(ema, content, tmp_path):
    path = saved(content, tmp_path / "gear.pt")
    folder = to_hub(open_model(path, preset=preset()), tmp_path / "hub")
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    ids = load_tokenizer(folder, ema=ema).encode(images).code_ids
    assert torch.equal(ids, load_tokenizer(path, ema=ema).encode(images).code_ids)
    labels, tokens = torch.tensor([0, 3]), torch.randint(64, (2, 4))
    ours, theirs = load_ar(folder, ema=ema), load_ar(path, ema=ema, config=ARS["c2i"])
    assert torch.equal(ours(tokens, labels)[0], theirs(tokens, labels)[0])


def test_a_run_of_ours_keeps_its_configuration_but_no_local_paths(tmp_path):
    stage = tiny.stage("e2e")
    state = stage.weights()
    state["config"]["data"]["data_dir"] = "/home/somebody/imagenet"
    folder = to_hub(open_model(saved(state, tmp_path / "model.pt")), tmp_path / "hub")
    assert "/home/somebody" not in (folder / "config.json").read_text()
    assert open_model(folder).config == stage.config
    back = open_model(to_reference(open_model(folder), tmp_path / "back.pt"))
    assert (back.config, back.phase, back.steps) == (stage.config, "e2e", 0)


def test_an_original_file_becomes_a_folder_whose_card_says_what_was_left_out(tmp_path):
    live = weights(TOKENIZERS["ibq"], 1)
    shadows = {"model_ema." + key.replace(".", ""): value + 1 for key, value in live.items()}
    content = {"state_dict": {**live, **shadows, "loss.logvar": torch.zeros(1)}, "global_step": 9}
    path = saved(content, tmp_path / "ibq.ckpt")
    code, out, error = gear("convert", path, "--out", tmp_path / "hub", "--repo-id", "org/ibq")
    assert (code, out.strip()) == (0, str(tmp_path / "hub"))
    assert "left out: loss.* (1 tensors: discriminator and LPIPS" in error
    text = (tmp_path / "hub" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "gear"
    for words in ('gear.load_tokenizer("org/ibq")', "ibq, 64 codes of 8 dimensions", "`loss.*`", "Lightning layout"):
        assert words in text
    assert describe(path)["sha256"] in text
    assert_same_bits(dict(open_model(tmp_path / "hub").parts["vq"]), live)


def test_facts_known_only_from_a_file_name_or_preset_are_recorded_in_the_converted_file(tmp_path):
    """Both are gone by then: LlamaGen's 384 px model, and one of a size that is not registered."""
    published = {"model": {name: torch.zeros(1).expand(shape) for name, shape in llamagen_b().items()}}
    folder = to_hub(open_model(saved(published, tmp_path / "c2i_B_384.pt")), tmp_path / "b")
    back = open_model(to_reference(open_model(folder), tmp_path / "back.pt"))
    assert (back.image_size, back.ar_config().block_size, back.settings["image_size"]) == (384, 576, 384)

    content = gear_content()
    del content["args"]
    folder = to_hub(open_model(saved(content, tmp_path / "own.pt"), preset=preset()), tmp_path / "own")
    back = open_model(to_reference(open_model(folder), tmp_path / "own-back.pt"))
    same_width = {"multiple_of": ARS["c2i"].multiple_of}  # several roundings give that of the feed-forward
    assert (back.image_size, replace(back.ar_config(), **same_width)) == (8, ARS["c2i"])


def llamagen_b() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = ClassConditionalAR(ar_config("LlamaGen-B"))
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_a_model_is_never_written_over_itself(content, tmp_path):
    folder = to_hub(open_model(saved(content, tmp_path / "gear.pt"), preset=preset()), tmp_path / "hub")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, error = gear("convert", folder, "--out", folder, "--part", "vq_ema")
    assert code == 2 and "hub holds config.json, which is being converted; give a new folder" in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_refused_conversion_writes_nothing_and_an_interrupted_one_can_be_repeated(content, tmp_path, monkeypatch):
    path = saved(content, tmp_path / "gear.pt")
    code, _, error = gear("convert", path, "--out", tmp_path / "hub")
    assert code == 2 and "give the configuration" in error
    assert not (tmp_path / "hub").exists()

    def full(*_: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    with monkeypatch.context() as broken:
        broken.setattr(safetensors.torch, "save_file", full)
        code, _, error = gear("convert", path, "--out", tmp_path / "hub", "--part", "vq")
        assert code == EnvironmentFailure.exit_code and "the disk or quota is full" in error
    (tmp_path / "hub" / "vq_ema.safetensors").write_bytes(b"half")
    assert gear("convert", path, "--out", tmp_path / "hub", "--part", "vq")[0] == 0
    assert sorted(file.name for file in (tmp_path / "hub").iterdir()) == ["README.md", "config.json", "vq.safetensors"]


def test_a_users_own_files_are_not_taken_for_an_interrupted_conversion(content, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    code, _, error = gear("convert", saved(content, tmp_path / "gear.pt"), "--out", tmp_path / "mine", "--part", "vq")
    assert code == 2 and "is not empty" in error and (tmp_path / "mine" / "README.md").read_text() == "mine"


def test_others_may_read_what_is_written(content, tmp_path):
    folder = to_hub(open_model(saved(content, tmp_path / "gear.pt"), preset=preset()), tmp_path / "hub")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_an_output_that_is_a_file_is_refused_in_one_sentence(content, tmp_path):
    path = saved(content, tmp_path / "gear.pt")
    (tmp_path / "taken").write_text("x")
    code, _, error = gear("convert", path, "--out", tmp_path / "taken", "--part", "vq")
    assert code == 2 and "taken" in error and "Traceback" not in error


def test_single_parts_can_be_published(content, tmp_path):
    path = saved(content, tmp_path / "gear.pt")
    assert gear("convert", path, "--out", tmp_path / "hub", "--part", "vq_ema")[0] == 0
    assert list(open_model(tmp_path / "hub").parts) == ["vq_ema"]
    code, _, error = gear("convert", path, "--out", tmp_path / "other", "--part", "vqq")
    assert code == 2 and "has no part 'vqq'; it has vq, vq_ema" in error


def test_a_second_conversion_replaces_the_first_and_nothing_else(content, tmp_path):
    whole = open_model(saved(content, tmp_path / "gear.pt"), preset=preset())
    to_hub(whole, tmp_path / "hub")
    to_hub(whole, tmp_path / "hub", parts=["vq"])
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["README.md", "config.json", "vq.safetensors"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty; give a new folder"):
        to_hub(whole, tmp_path / "full")


def test_a_changed_file_of_a_folder_is_found_by_its_digest(content, tmp_path):
    folder = to_hub(open_model(saved(content, tmp_path / "gear.pt"), preset=preset()), tmp_path / "hub")
    before = describe(folder)["sha256"]
    assert len(before) == 64
    path = folder / "vq.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"vq.safetensors of .* is not the file that config.json describes"):
        describe(folder)


@pytest.mark.parametrize("name", ["../vq.safetensors", "/etc/passwd", "vq.pt"])
def test_a_card_that_points_out_of_its_folder_is_refused(name, content, tmp_path):
    folder = to_hub(open_model(saved(content, tmp_path / "gear.pt"), preset=preset()), tmp_path / "hub")
    card = json.loads((folder / "config.json").read_text())
    card["parts"]["vq"]["file"] = name
    (folder / "config.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"is damaged .* is not a safetensors file of this folder"):
        open_model(folder)


def test_the_reference_layout_is_a_file(content, tmp_path):
    path = saved(content, tmp_path / "gear.pt")
    code, _, error = gear("convert", path, "--to", "reference", "--out", tmp_path)
    assert code == 2 and "the reference layout is one file: --out" in error


def test_info_describes_a_third_party_file_in_a_few_lines(content, tmp_path):
    code, out, _ = gear("info", saved({"model": content["vq"], "steps": 4}, tmp_path / "vq.pt"))
    assert code == 0
    assert "layout: LlamaGen" in out and "tokenizer: vq, 64 codes of 4 dimensions, 2 px per token" in out
    facts = json.loads(gear("info", tmp_path / "vq.pt", "--json")[1])
    assert (facts["steps"], facts["averaged_weights"], facts["ar"]) == (4, [], None)
    code, out, _ = gear("info", saved(content, tmp_path / "gear.pt"))
    assert code == 0 and "ar: 'not known:" in out and "left_out:" in out
