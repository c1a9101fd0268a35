from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gear.data.base import BadSample, Sample
from gear.training.checkpoint import load_tensors
from gear.training.loop import fit
from gear.training.stages.stage import Stage
from harness.contract.errors import EXIT_STOPPED, BadSamples, EnvironmentFailure, UserError
from tests.gear import tiny
from tests.gear.same_bits import assert_same_bits

PHASES = ("tokenizer", "e2e", "ar", "t2i")


def model(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("phase", PHASES)
def test_a_stopped_run_continues_to_the_same_bits(phase: str, tmp_path: Path) -> None:
    """SIGTERM in the middle, then the same call: weights, averages and optimizers of an uninterrupted run."""
    uninterrupted = fit(tiny.stage(phase), tiny.Noise(), tmp_path / "whole", {})

    stage = tiny.stage(phase)
    finish = stage.finish_update

    def stop_after_three() -> None:
        finish()
        if stage.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    stage.finish_update = stop_after_three  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as stopped:
        fit(stage, tiny.Noise(), tmp_path / "stopped", {})
    assert stopped.value.code == EXIT_STOPPED

    torch.manual_seed(12345)  # whatever the new process's random state is, it must not matter
    continued = fit(tiny.stage(phase), tiny.Noise(), tmp_path / "stopped", {})
    assert_same_bits(model(uninterrupted), model(continued))
    last = "checkpoints/0000006.pt"
    assert_same_bits(model(tmp_path / "whole" / last), model(tmp_path / "stopped" / last))


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = fit(tiny.stage("e2e"), tiny.Noise(), tmp_path / "whole", {})

    class Vanished(Exception):
        """Acts like kill -9: nothing of the loop runs after it."""

    stage = tiny.stage("e2e")
    step = stage.micro_step

    def vanish(*args: object, **kwargs: object) -> object:
        if stage.step == 3:
            raise Vanished
        return step(*args, **kwargs)  # type: ignore[arg-type]

    stage.micro_step = vanish  # type: ignore[method-assign,assignment]
    with pytest.raises(Vanished):
        fit(stage, tiny.Noise(), tmp_path / "killed", {})
    assert [path.name for path in sorted((tmp_path / "killed/checkpoints").glob("*.pt"))] == ["0000002.pt"]
    continued = fit(tiny.stage("e2e"), tiny.Noise(), tmp_path / "killed", {})
    assert_same_bits(model(whole), model(continued))

    steps = [json.loads(line)["step"] for line in (tmp_path / "killed/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6], "the log has every step once"


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    path = fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {})
    before = path.stat().st_mtime_ns
    assert fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {}) == path
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "older"])
def test_a_damaged_model_file_is_written_again_from_the_checkpoint(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {})
    whole = path.read_bytes()
    if damage == "older":  # a run that was made longer and killed between its last checkpoint and its model file
        torch.save({**model(path), "steps": 3}, path)
    else:
        broken = bytearray(whole)
        broken[len(whole) // 2] ^= 1
        path.write_bytes({"bit": bytes(broken), "cut": whole[:-100], "empty": b""}[damage])
    stage = tiny.stage("tokenizer")
    stage.micro_step = None  # type: ignore[method-assign,assignment]
    assert fit(stage, tiny.Noise(), tmp_path, {}) == path
    assert path.read_bytes() == whole
    assert (damage == "older") != ("it is written again from the checkpoint" in caplog.text)


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path / "grown", {})
    longer = tiny.config(steps=8)
    grown = fit(tiny.stage("tokenizer", longer), tiny.Noise(), tmp_path / "grown", {})
    at_once = fit(tiny.stage("tokenizer", longer), tiny.Noise(), tmp_path / "at-once", {})
    assert_same_bits(model(at_once), model(grown))


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {})
    other = tiny.config(ema_decay=0.5)
    with pytest.raises(
        UserError, match=r"holds another run \(it differs in config\.stage\.ema_decay: .* there, 0\.5 now\)"
    ):
        fit(tiny.stage("tokenizer", other), tiny.Noise(), tmp_path, {})
    with pytest.raises(UserError, match=r"files\.init"):
        fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {"init": "0" * 64})


def test_the_names_of_the_classes_belong_to_the_run(tmp_path: Path) -> None:
    """An empty folder more between stop and resume gives all later classes another label."""

    class Named(tiny.Noise):
        classes = ("ant", "cat", "dog")

    fit(tiny.stage("ar"), Named(), tmp_path, {})
    fit(tiny.stage("ar"), Named(), tmp_path, {})
    Named.classes = (".ipynb_checkpoints", "ant", "cat", "dog")
    with pytest.raises(UserError, match=r"holds another run \(it differs in classes: \['ant', 'cat', 'dog'\] there"):
        fit(tiny.stage("ar"), Named(), tmp_path, {})
    identity = json.loads((tmp_path / "config.json").read_text())
    del identity["classes"]  # as runs before this check were written
    (tmp_path / "config.json").write_text(json.dumps(identity))
    fit(tiny.stage("ar"), Named(), tmp_path, {})


def test_a_folder_in_which_nothing_was_trained_takes_the_corrected_command(tmp_path: Path) -> None:
    """A command that failed after its configuration was written, for example since a tracker was not installed."""

    class Failed(Exception):
        pass

    class Broken(tiny.Noise):
        def item(self, index: int, rng: np.random.Generator) -> Sample:
            raise Failed

    with pytest.raises(Failed):
        fit(tiny.stage("tokenizer"), Broken(), tmp_path, {})
    other = tiny.config(ema_decay=0.5)
    fit(tiny.stage("tokenizer", other), tiny.Noise(), tmp_path, {})
    assert json.loads((tmp_path / "config.json").read_text())["config"]["stage"]["ema_decay"] == 0.5


def test_a_diverging_run_may_resume_with_another_clipping_norm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished = fit(tiny.stage("tokenizer", tiny.config(steps=2)), tiny.Noise(), tmp_path, {})
    tighter = tiny.config(steps=4, max_grad_norm=0.5)
    with pytest.raises(UserError, match=r"holds another run .*max_grad_norm"):
        fit(tiny.stage("tokenizer", tighter), tiny.Noise(), tmp_path, {})
    finished.unlink()  # as if it had stopped there
    fit(tiny.stage("tokenizer", tighter), tiny.Noise(), tmp_path, {})
    assert "continuing with a changed stage.max_grad_norm: 1.0 there, 0.5 now." in caplog.messages
    assert json.loads((tmp_path / "config.json").read_text())["config"]["stage"]["max_grad_norm"] == 0.5


def test_what_a_stage_never_reads_does_not_make_it_another_run(tmp_path: Path) -> None:
    fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path, {})
    values = tiny.config().to_dict()
    values |= {"name": "other", "teacher": {**values["teacher"], "spatial_norm": "zscore"}}
    fit(tiny.stage("tokenizer", tiny.RunConfig.from_dict(values)), tiny.Noise(), tmp_path, {})


def poison_after(stage: Stage, step: int) -> None:
    """From that update on the forward pass gives NaN, as a diverged run's does; the weights themselves are fine."""
    finish = stage.finish_update

    def finish_and_poison() -> None:
        finish()
        if stage.step == step:
            stage.modules["vq"].register_forward_hook(lambda _, __, code: replace(code, recon=code.recon * math.nan))

    stage.finish_update = finish_and_poison  # type: ignore[method-assign]


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_ruined(log_every: int, tmp_path: Path) -> None:
    """Also on a step that is not logged: weights, averages and moments stay finite, and the bad update is not saved."""
    stage: Stage = tiny.stage("e2e", tiny.config(checkpoint_every=4, log_every=log_every, steps=12))
    poison_after(stage, 5)
    with pytest.raises(EnvironmentFailure, match="is nan at step 6"):
        fit(stage, tiny.Noise(), tmp_path, {})
    trouble = json.loads((tmp_path / "nonfinite.json").read_text())
    assert trouble["step"] == 6
    assert {"reconstruction_loss", "vq_total", "grad_norm_vq"} <= set(trouble["terms"])
    assert "ce_loss" not in trouble["terms"], "the AR model had nothing to do with it"
    assert len(trouble["batch_ids"]) == 4

    held = [*stage.modules["vq"].parameters(), *stage.averages["vq_ema"].module.parameters()]
    held += [value for state in stage.optimizations["tokenizer"].optimizer.state.values() for value in state.values()]
    assert all(tensor.isfinite().all() for tensor in held)
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.pt")] == ["0000004.pt"]
    assert not (tmp_path / "model.pt").exists()


class HalfBroken(tiny.Noise):
    """Odd samples cannot be used."""

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        if index % 2:
            raise BadSample(f"sample {index} is torn")
        return super().item(index, rng)


def test_bad_samples_are_named_once_and_end_the_run_beyond_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tiny.stage("tokenizer"), HalfBroken(), tmp_path / "patient", {})
    assert "5 samples could not be used, and others took their place" in caplog.text
    assert str(tmp_path / "patient/bad_samples.jsonl") in caplog.text
    lines = (tmp_path / "patient/bad_samples.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["problem"] for line in lines) == [f"sample {n} is torn" for n in (1, 3, 5, 7, 9)]

    values = tiny.config().to_dict()
    values["data"]["max_bad_samples"] = 2
    with pytest.raises(BadSamples, match=r"data\.max_bad_samples = 2"):
        fit(tiny.stage("tokenizer", tiny.RunConfig.from_dict(values)), HalfBroken(), tmp_path / "strict", {})


def test_lecam_statistics_are_part_of_a_checkpoint(tmp_path: Path) -> None:
    values = tiny.config().to_dict()
    values["loss"]["lecam_regularization_weight"] = 0.1
    config = tiny.RunConfig.from_dict(values)
    stage = tiny.stage("e2e", config)
    fit(stage, tiny.Noise(), tmp_path, {})
    fresh = tiny.stage("e2e", config)
    fresh.load_state_dict(load_tensors(tmp_path / "checkpoints/0000006.pt"))
    for name in ("ema_real_logits_mean", "ema_fake_logits_mean"):
        restored = getattr(fresh.losses, name)
        assert restored != 0
        assert torch.equal(restored, getattr(stage.losses, name))
    assert "running" not in load_tensors(tmp_path / "model.pt")
