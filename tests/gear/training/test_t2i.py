from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.config import RunConfig
from gear.training.loop import fit
from gear.training.stopping import EXIT_INTERRUPTED
from gear.training.t2i import TextToImageStage, drop_captions, warm_start
from gear.weights import open_model
from harness.contract.errors import UserError
from tests.gear import tiny, tiny_text
from tests.gear.training.test_loop import assert_same, model


def test_one_update_moves_the_ar_and_the_projectors_and_nothing_else() -> None:
    stage = tiny_text.stage()
    before = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in stage.modules.items()}
    encoder = {key: value.clone() for key, value in tiny_text.qwen3().state_dict().items()}
    for _ in range(2):  # the first update has a learning rate of zero
        logs = stage.micro_step(tiny.batch(), last=True, diagnose=True)
    assert {"ar_total", "ce_loss", "proj_loss_ar", "captions_cut"} <= logs.keys()
    changed = {
        name
        for name, module in stage.modules.items()
        if any(not torch.equal(v, before[name][k]) for k, v in module.state_dict().items())
    }
    assert changed == {"ar", "projectors"}
    assert_same(encoder, dict(tiny_text.qwen3().state_dict()))


def test_the_loss_is_next_token_prediction_plus_alignment() -> None:
    stage = tiny_text.stage()
    logs = stage.micro_step(tiny.batch(), last=True, diagnose=False)
    expected = logs["ce_loss"] + stage.config.gear.align_coeff * logs["proj_loss_ar"]
    assert torch.allclose(torch.as_tensor(logs["ar_total"]), torch.as_tensor(expected))


def test_a_dropped_caption_becomes_the_empty_one_features_and_mask() -> None:
    encoder = tiny_text.encoder()
    captions, null = encoder.encode(["abc", "de", ""]), encoder.null()
    dropped = drop_captions(captions, null, torch.tensor([True, False, False]))
    assert torch.equal(dropped.features, torch.stack([null.features[0], captions.features[1], captions.features[2]]))
    assert captions.mask is not None and dropped.mask is not None
    assert dropped.mask.sum(dim=1).tolist() == [0, 2, 0]


def test_captions_are_dropped_by_the_samples_own_draws() -> None:
    stage = tiny_text.stage()
    batch = dataclasses.replace(tiny.batch(), null_draws=torch.tensor([0.0, 0.29, 0.31, 0.9]))
    condition = stage.condition(batch)
    assert condition.mask is not None
    assert condition.mask.any(dim=1).tolist() == [False, False, True, True]


def test_data_without_captions_is_refused() -> None:
    with pytest.raises(UserError, match="needs captions, and these images have none"):
        tiny_text.stage().condition(dataclasses.replace(tiny.batch(), captions=(None,) * 4))


def class_conditional(config: RunConfig) -> ClassConditionalAR:
    ar = ClassConditionalAR(tiny.config().class_ar)
    for parameter in ar.parameters():
        torch.nn.init.normal_(parameter)
    return ar


def test_a_class_conditional_model_gives_its_trunk_and_starts_the_text_stream() -> None:
    config = tiny_text.config()
    theirs = class_conditional(config)
    ours = TextToImageAR(config.text_ar)
    fresh = ours.cls_embedding.cap_proj.fc1.weight.clone()
    warm_start(ours, theirs.state_dict(), copy_image_stream=True)
    block = ours.layers[0]
    assert torch.equal(block.attention.wqkv.weight, theirs.layers[0].attention.wqkv.weight)
    assert torch.equal(block.attention.wqkv_text.weight, theirs.layers[0].attention.wqkv.weight)
    assert torch.equal(block.attention_norm_text.weight, theirs.layers[0].attention_norm.weight)
    assert torch.equal(ours.cls_embedding.cap_proj.fc1.weight, fresh)


def test_the_text_stream_may_stay_fresh() -> None:
    config = tiny_text.config()
    ours = TextToImageAR(config.text_ar)
    before = ours.layers[0].attention.wqkv_text.weight.clone()
    warm_start(ours, class_conditional(config).state_dict(), copy_image_stream=False)
    assert torch.equal(ours.layers[0].attention.wqkv_text.weight, before)


def test_a_text_to_image_model_keeps_its_trained_text_stream() -> None:
    config = tiny_text.config()
    trained, ours = TextToImageAR(config.text_ar), TextToImageAR(config.text_ar)
    warm_start(ours, trained.state_dict(), copy_image_stream=True)
    assert_same(dict(trained.state_dict()), dict(ours.state_dict()))
    assert not torch.equal(ours.layers[0].attention.wqkv_text.weight, ours.layers[0].attention.wqkv.weight)


def test_a_model_of_another_size_is_refused_key_by_key() -> None:
    config = tiny_text.config()
    wrong = {key: value for key, value in class_conditional(config).state_dict().items() if "layers.1" not in key}
    with pytest.raises(UserError, match=r"layers\.1"):
        warm_start(TextToImageAR(config.text_ar), wrong, copy_image_stream=True)


def interrupted(stage: TextToImageStage, at: int, how: Callable[[], None]) -> TextToImageStage:
    finish = stage.finish_update

    def finish_then() -> None:
        finish()
        if stage.step == at:
            how()

    stage.finish_update = finish_then  # type: ignore[method-assign]
    return stage


def test_a_stopped_run_continues_to_the_same_bits(tmp_path: Path) -> None:
    whole = fit(tiny_text.stage(), tiny.Noise(), tmp_path / "whole", {})
    stage = interrupted(tiny_text.stage(), 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        fit(stage, tiny.Noise(), tmp_path / "stopped", {})
    assert stopped.value.code == EXIT_INTERRUPTED
    torch.manual_seed(12345)  # whatever the new process's random state is, it must not matter
    continued = fit(tiny_text.stage(), tiny.Noise(), tmp_path / "stopped", {})
    assert_same(model(whole), model(continued))


def test_a_killed_run_continues_to_the_same_bits(tmp_path: Path) -> None:
    """kill -9 after the third update: the checkpoint of the second one is all that is left."""
    whole = fit(tiny_text.stage(), tiny.Noise(), tmp_path / "whole", {})
    child = os.fork()
    if child == 0:
        try:
            fit(
                interrupted(tiny_text.stage(), 3, lambda: os.kill(os.getpid(), signal.SIGKILL)),
                tiny.Noise(),
                tmp_path / "killed",
                {},
            )
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.pt").exists()
    continued = fit(tiny_text.stage(), tiny.Noise(), tmp_path / "killed", {})
    assert_same(model(whole), model(continued))


def test_a_finished_run_is_all_that_sampling_needs(tmp_path: Path) -> None:
    stage = tiny_text.stage()
    opened = open_model(fit(stage, tiny.Noise(), tmp_path, {}))
    assert opened.config is not None and opened.config.text == stage.config.text
    ar, null = opened.ar(), opened.null_caption()
    assert isinstance(ar, TextToImageAR) and isinstance(null, TextCondition)
    assert torch.equal(null.features, tiny_text.encoder().null().features)
    assert opened.tokenizer().config == stage.config.tokenizer
