"""What one watches: the log, trackers, grids and monitors of real runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gear.training import grids
from gear.training.drawing import models_of
from gear.training.flops import flops_per_image, tokenizer_flops
from gear.training.loop import fit
from gear.training.monitors import read_reference
from gear.training.recorder import Recorder, mean_figures
from gear.training.throughput import Throughput, peak_tflops
from harness.contract.errors import UserError
from tests.gear import tiny


def watched(**watch: object) -> tiny.RunConfig:
    values = tiny.config().to_dict() | {"watch": watch}
    return tiny.RunConfig.from_dict(values)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_every_logged_step_says_how_fast_the_run_is(tmp_path: Path) -> None:
    fit(tiny.stage("ar", watched(peak_tflops=0.5)), tiny.Noise(), tmp_path, {})
    for row in rows(tmp_path):
        assert row["tokens_per_s"] == pytest.approx(16 * row["images_per_s"])
        assert 0 < row["mfu"] < 1
        assert 0 <= row["data_wait_share"] <= 1
        assert row["memory_gib"] > 0


def test_time_away_from_training_does_not_count() -> None:
    cpu = torch.device("cpu")
    meter = Throughput(cpu, tokens_per_image=4, flops_per_image=1e9, peak_tflops=None)
    with meter.away():
        time.sleep(0.3)
    meter.advance(10)
    assert meter.look()["images_per_s"] > 10 / 0.3
    assert peak_tflops(cpu) is None
    assert peak_tflops(cpu, 3.0) == 3.0


def test_flops_of_a_known_model() -> None:
    """Stage ar, by hand: 16 slots, two blocks of width 16, four tokens a side."""
    stage = tiny.stage("ar")
    config = stage.config.ar
    block = 4 * 16 * 16 + 3 * 16 * stage.ar.config.ffn_dim  # q, k, v, o; three matrices of the feed-forward
    trunk = 2 * (2 * 16 * block + 4 * 16 * 16 * 16) + 2 * 16 * 16 * config.vocab_size
    projectors = 2 * 16 * (16 * 8 + 8 * 8 + 8 * tiny.TEACHER_DIM)
    encode, decode = tokenizer_flops(stage.tokenizer, tiny.IMAGE_SIZE)
    assert flops_per_image(stage) == pytest.approx(encode + 3 * (trunk + projectors))
    assert flops_per_image(tiny.stage("e2e")) > 3 * (encode + decode + trunk + projectors)


def test_figures_are_read_one_update_late_and_none_is_lost() -> None:
    recorder = Recorder(torch.device("cpu"))
    for step in (1, 2, 3):
        recorder.put(step, {"loss": torch.tensor(float(step)), "lr": 0.1}, [step], logged=True, stop=step == 2)
        assert [row.step for row in recorder.rows(keep=1)] == ([step - 1] if step > 1 else [])
    (last,) = recorder.rows()
    assert (last.step, last.values, last.stop) == (3, {"loss": 3.0, "lr": 0.1}, False)


def test_micro_batches_are_averaged_where_all_have_the_figure() -> None:
    parts = [{"loss": torch.tensor(1.0)}, {"loss": torch.tensor(3.0), "usage": torch.tensor(0.5), "lr": 0.1}]
    assert mean_figures(parts) == {"loss": 2.0, "usage": 0.5, "lr": 0.1}  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["tokenizer", "e2e", "ar"])
def test_grids_are_drawn_into_the_run_folder_and_change_nothing(phase: str, tmp_path: Path) -> None:
    config = watched(grids_every=3, grid_images=4)
    fit(tiny.stage(phase, config), tiny.Noise(), tmp_path / "watched", {})
    fit(tiny.stage(phase), tiny.Noise(), tmp_path / "plain", {})
    kinds = {"reconstructions"} | ({"samples"} if phase != "tokenizer" else set())
    names = {path.name for path in (tmp_path / "watched/images").iterdir()}
    assert names == {f"{step:07d}-{kind}.png" for step in (3, 6) for kind in kinds}
    with Image.open(tmp_path / "watched/images/0000006-reconstructions.png") as pairs:
        assert min(pairs.size) > 8

    watched_model, plain_model = (torch.load(tmp_path / name / "model.pt") for name in ("watched", "plain"))
    for part in ("vq", "ar"):
        for key, value in watched_model.get(part, {}).items():
            assert torch.equal(value, plain_model[part][key]), key


def test_a_grid_reads_like_a_page() -> None:
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.ones((6, 4, 4, 3), np.uint8)
    page = grids.grid(images)
    assert page.shape == (3 * 4 + 2 * 2, 2 * 4 + 2, 3)
    assert [page[0, 0, 0], page[0, 6, 0], page[6, 0, 0], page[5, 0, 0]] == [1, 2, 3, 255]


def test_drawing_leaves_the_modes_of_the_models_alone() -> None:
    stage = tiny.stage("e2e")
    stage.ar.train()
    with models_of(stage, "live") as models:
        assert models.ar is stage.ar
        assert not stage.ar.training
    assert stage.ar.training


@pytest.mark.slow
def test_monitors_measure_live_and_averaged_weights(tmp_path: Path) -> None:
    """Through EfficientNet-Lite0's features and the harness's metrics; validation images from a folder."""
    for index in range(6):
        pixels, _, _ = tiny.Noise().item(index, np.random.default_rng(0))
        path = tmp_path / "val/class" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    config = watched(
        generation_every=6, generation_images=12, reconstruction_every=6, validation_dir=str(tmp_path / "val")
    )
    fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path / "run", {})
    figures = rows(tmp_path / "run")[-1]
    for weights in ("live", "ema"):
        assert figures[f"generation/frechet_lite0/{weights}"] > 0
    for prefix in ("vq_val", "vq_val_ema"):
        assert 0 < figures[f"{prefix}/l1"] < 1
        assert 0 < figures[f"{prefix}/psnr"] < 40
        assert -1 < figures[f"{prefix}/ssim"] < 1
        assert figures[f"{prefix}/frechet_lite0"] > 0


def test_reconstruction_metrics_without_validation_images_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"watch\.validation_dir"):
        fit(tiny.stage("tokenizer", watched(reconstruction_every=2)), tiny.Noise(), tmp_path, {})


def test_published_statistics_are_read_and_others_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert read_reference(tmp_path / "good.npz").mean.shape == (3,)
    np.savez(tmp_path / "bad.npz", mean=np.zeros(3))
    with pytest.raises(UserError, match=r"bad\.npz holds no statistics"):
        read_reference(tmp_path / "bad.npz")


def test_tensorboard_gets_figures_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = watched(track="tensorboard", grids_every=6, grid_images=2)
    fit(tiny.stage("ar", config), tiny.Noise(), tmp_path, {})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [scalar.value for scalar in events.Scalars("ce_loss")]
    np.testing.assert_allclose(losses, [row["ce_loss"] for row in rows(tmp_path)], rtol=1e-6)
    assert set(events.Tags()["images"]) == {"samples", "reconstructions"}


@pytest.mark.slow
def test_wandb_keeps_a_run_on_the_disk_and_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit(tiny.stage("ar", watched(track="wandb")), tiny.Noise(), tmp_path, {})
    run_id = (tmp_path / "wandb-id.txt").read_text()
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{run_id}")
    assert (folder / f"run-{run_id}.wandb").stat().st_size > 0


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UserError, match="there are tensorboard and wandb"):
        watched(track="tensorbored")
