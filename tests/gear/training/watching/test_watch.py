"""Watching a run: the log, trackers, grids and monitors of real runs."""

from __future__ import annotations

import json
import os
import signal
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gear.data.base import Sample
from gear.training.checkpoint import load_tensors
from gear.training.loop import fit
from gear.training.watching import grids, schedule
from gear.training.watching.drawing import Images01, evaluation_models, fixed_choice, images_of, requests_for, to_01
from gear.training.watching.flops import flops_per_image, tokenizer_flops
from gear.training.watching.metric_queue import MetricQueue, mean_metrics
from gear.training.watching.monitors import Extractor, GenerationMonitor, ReconstructionMonitor, read_reference
from gear.training.watching.throughput import Throughput, peak_tflops
from harness.contract.errors import EXIT_STOPPED, UserError
from harness.contract.requests import SamplingProtocol
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.image import l1, psnr, ssim
from tests.gear import tiny
from tests.gear.same_bits import assert_same_bits
from tests.gear.training import spawn


def watched(**watch: object) -> tiny.RunConfig:
    values = tiny.config().to_dict() | {"watch": watch}
    return tiny.RunConfig.from_dict(values)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def figures_at(out: Path, step: int) -> dict[str, float]:
    """All figures of a step in the log; each occurs once."""
    figures: dict[str, float] = {}
    for row in rows(out):
        if row["step"] == step:
            measured = {name: value for name, value in row.items() if "/" in name}
            assert not measured.keys() & figures.keys()
            figures |= measured
    return figures


def steps_with(out: Path, prefix: str) -> list[int]:
    return [int(row["step"]) for row in rows(out) if any(name.startswith(prefix) for name in row)]


def colours(images_01: Images01) -> np.ndarray:
    """Three features, for distances that cost nothing."""
    return images_01.mean(axis=(2, 3)).astype(np.float32)


class ByClass(tiny.Noise):
    """Class after class, as folders are read; records the requested indices."""

    def __init__(self, length: int = 30, enlarged: int = 1) -> None:
        self.length, self.enlarged = length, enlarged
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.length

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        self.asked.append(index)
        image_u8 = np.tile(super().item(index, rng).image_u8, (1, self.enlarged, self.enlarged))
        return Sample(image_u8, index * tiny.NUM_CLASSES // self.length, f"caption {index}")


@pytest.fixture
def extract_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Extractor], None]:
    """Another network than the configured one, in runs."""

    def use(extract: Extractor) -> None:
        monkeypatch.setattr(schedule, "build_extractor", lambda config, device: extract)

    return use


@pytest.fixture
def validation_dir(tmp_path: Path) -> str:
    for index in range(6):
        pixels, _, _ = tiny.Noise().item(index, np.random.default_rng(0))
        path = tmp_path / "val/class" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return str(tmp_path / "val")


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
    recorder = MetricQueue(torch.device("cpu"))
    for step in (1, 2, 3):
        recorder.put(step, {"loss": torch.tensor(float(step)), "lr": 0.1}, [step], logged=True, stop=step == 2)
        assert [row.step for row in recorder.rows(keep=1)] == ([step - 1] if step > 1 else [])
    (last,) = recorder.rows()
    assert (last.step, last.values, last.stop) == (3, {"loss": 3.0, "lr": 0.1}, False)


def test_micro_batches_are_averaged_where_all_have_the_figure() -> None:
    parts = [{"loss": torch.tensor(1.0)}, {"loss": torch.tensor(3.0), "usage": torch.tensor(0.5), "lr": 0.1}]
    assert mean_metrics(parts) == {"loss": 2.0, "usage": 0.5, "lr": 0.1}  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["tokenizer", "e2e", "ar"])
def test_grids_are_drawn_into_the_run_folder_and_change_nothing(phase: str, tmp_path: Path) -> None:
    config = watched(grids_every=3, grid_images=4)
    fit(tiny.stage(phase, config), tiny.Noise(), tmp_path / "watched", {})
    fit(tiny.stage(phase), tiny.Noise(), tmp_path / "plain", {})
    kinds = {"reconstructions"} | ({"samples"} if phase != "tokenizer" else set())
    names = {path.name for path in (tmp_path / "watched/images").iterdir()}
    assert names == {f"{step:07d}-{kind}.png" for step in (1, 3, 6) for kind in kinds}
    with Image.open(tmp_path / "watched/images/0000006-reconstructions.png") as pairs:
        assert min(pairs.size) > 8

    watched_model, plain_model = (torch.load(tmp_path / name / "model.pt") for name in ("watched", "plain"))
    for part in ("vq", "ar"):
        for key, value in watched_model.get(part, {}).items():
            assert torch.equal(value, plain_model[part][key]), key


def test_a_grid_is_in_reading_order() -> None:
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.ones((6, 4, 4, 3), np.uint8)
    page = grids.grid(images)
    assert page.shape == (3 * 4 + 2 * 2, 2 * 4 + 2, 3)
    assert [page[0, 0, 0], page[0, 6, 0], page[6, 0, 0], page[5, 0, 0]] == [1, 2, 3, 255]


def test_drawing_leaves_the_modes_of_the_models_alone() -> None:
    stage = tiny.stage("e2e")
    stage.ar.train()
    with evaluation_models(stage, "live") as models:
        assert models.ar is stage.ar
        assert not stage.ar.training
    assert stage.ar.training


@pytest.mark.slow
def test_monitors_measure_live_and_averaged_weights(validation_dir: str, tmp_path: Path) -> None:
    """Through EfficientNet-Lite0's features and the harness's metrics; validation images from a folder."""
    config = watched(generation_every=6, generation_images=12, reconstruction_every=6, validation_dir=validation_dir)
    fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path / "run", {})
    figures = figures_at(tmp_path / "run", 6)
    for weights in ("live", "ema"):
        assert figures[f"generation/frechet_lite0/{weights}"] > 0
    for prefix in ("vq_val", "vq_val_ema"):
        assert 0 < figures[f"{prefix}/l1"] < 1
        assert 0 < figures[f"{prefix}/psnr"] < 40
        assert -1 < figures[f"{prefix}/ssim"] < 1
        assert figures[f"{prefix}/frechet_lite0"] > 0


def test_reconstructions_and_grids_begin_at_step_1_and_drawing_many_images_does_not(
    extract_with: Callable[[Extractor], None], validation_dir: str, tmp_path: Path
) -> None:
    extract_with(colours)
    plan: dict[str, Any] = {"generation_every": 4, "generation_images": 4, "grids_every": 4, "reconstruction_every": 4}
    plan |= {"validation_dir": validation_dir, "grid_images": 2}
    fit(tiny.stage("e2e", watched(**plan)), tiny.Noise(), tmp_path / "on", {})
    fit(tiny.stage("e2e", watched(**plan, at_step_1=False)), tiny.Noise(), tmp_path / "off", {})
    assert steps_with(tmp_path / "on", "vq_val/") == steps_with(tmp_path / "on", "vq_val_ema/") == [1, 4]
    assert steps_with(tmp_path / "on", "generation/") == [4]
    assert steps_with(tmp_path / "off", "vq_val/") == [4]
    for name, steps in (("on", [1, 4]), ("off", [4])):
        assert sorted((tmp_path / name / "images").iterdir()) == [
            tmp_path / name / "images" / f"{step:07d}-{kind}.png"
            for step in steps
            for kind in ("reconstructions", "samples")
        ]


def test_the_images_that_are_shown_are_a_fixed_choice_from_all_classes() -> None:
    source = ByClass(3000)
    choice = fixed_choice(source, 30)
    assert len(set(choice)) == 30 and choice == fixed_choice(source, 30) == sorted(choice)
    per_class = np.bincount([source.item(index, np.random.default_rng()).label for index in choice])
    assert per_class.min() >= 4
    assert fixed_choice(source, 3000) == fixed_choice(source, 9999) == list(range(3000))

    source, config = ByClass(), watched(grid_images=9, reconstruction_images=9, generation_images=9)
    tokenizer, t2i = tiny.stage("tokenizer", config), tiny.stage("t2i", config)
    protocol = SamplingProtocol(image_size=tiny.IMAGE_SIZE)
    for look in (
        lambda: grids.reconstruction_grid(tokenizer, source),
        lambda: requests_for(t2i, source, 9, protocol),
        lambda: ReconstructionMonitor(tokenizer, source, colours).measure(),
        lambda: GenerationMonitor(t2i, source, colours).measure(),
    ):
        source.asked = []
        look()
        assert set(source.asked) == set(fixed_choice(source, 9)) != set(range(9))


def test_reconstruction_figures_are_those_of_the_whole_set_without_rounding() -> None:
    """Means over the images, whatever the batches; the Frechet distance of floats and not of levels."""
    stage, source = tiny.stage("tokenizer", watched(batch_size=4)), ByClass()
    with torch.no_grad():
        for parameter in stage.averages["vq_ema"].module.parameters():
            parameter.mul_(1.1)
    monitor = ReconstructionMonitor(stage, source, colours)
    figures = monitor.measure()
    originals = images_of(source, range(len(source)))
    assert originals is not None
    truth = to_01(originals)
    for weights, prefix in (("live", "vq_val"), ("ema", "vq_val_ema")):
        with evaluation_models(stage, weights) as models:  # type: ignore[arg-type]
            recon = np.concatenate([models.reconstruct(originals[start : start + 4]) for start in range(0, 30, 4)])
        for name, metric in (("l1", l1), ("psnr", psnr), ("ssim", ssim)):
            assert figures[f"{prefix}/{name}"] == pytest.approx(metric(truth, recon).mean(), rel=1e-12)
        fitted = statistics(colours(truth))
        unrounded = frechet_distance(statistics(colours(recon)), fitted).value
        rounded = frechet_distance(statistics(colours(np.rint(recon * 255) / np.float32(255))), fitted).value
        assert figures[f"{prefix}/frechet_lite0"] == pytest.approx(unrounded, rel=1e-9)
        assert unrounded != pytest.approx(rounded, rel=1e-7)
    source.asked = []
    assert monitor.measure() == figures
    assert source.asked == list(range(30)), "each image once for both weights, the originals' features not again"


@pytest.mark.parametrize("kind", [ReconstructionMonitor, GenerationMonitor])
def test_a_monitor_holds_one_batch_of_images_however_many_there_are(kind: Any) -> None:
    def peak(count: int) -> int:
        images: list[int] = []

        def extract(images_01: Images01) -> np.ndarray:
            images.append(len(images_01))
            return colours(images_01)

        config = watched(batch_size=8, reconstruction_images=count, generation_images=count)
        monitor = kind(tiny.stage("ar", config), ByClass(count, enlarged=4), extract)
        if kind is GenerationMonitor:
            monitor.measure = monitor._find_reference
        tracemalloc.start()
        monitor.measure()
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(images) == 8
        return reached

    peak(16)  # what is made once
    levels = 3 * (4 * tiny.IMAGE_SIZE) ** 2
    assert peak(400) - peak(80) < 320 * levels / 8, "indices, and no levels"


class Interrupting:
    """An extractor that has the process asked to stop in its `at`-th call; counts calls."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, images_01: Images01) -> np.ndarray:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return colours(images_01)


@pytest.mark.parametrize("step", [3, 6])
def test_a_monitor_stops_between_batches_and_measures_when_the_run_resumes(
    step: int, extract_with: Callable[[Extractor], None], validation_dir: str, tmp_path: Path
) -> None:
    """In the reconstructions of a step in the middle and of the last one: what was drawn before is not drawn again."""
    config = watched(
        generation_every=step,
        generation_images=8,
        reconstruction_every=step,
        validation_dir=validation_dir,
        batch_size=2,
        at_step_1=False,
        grids_every=0,
    )
    values = config.to_dict()
    for settings in values["stages"].values():
        settings["checkpoint_every"] = 4
    config = tiny.RunConfig.from_dict(values)
    extract_with(colours)
    whole = fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path / "plain", {})

    of_generation = 4 + 2  # batches of the reference, a tile of each weights
    interrupting = Interrupting(at=of_generation + 4)
    extract_with(interrupting)
    with pytest.raises(SystemExit) as stopped:
        fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path / "run", {})
    assert stopped.value.code == EXIT_STOPPED
    assert interrupting.calls == of_generation + 6, "the first batch of three; two of its features followed"
    assert load_tensors(tmp_path / "run/checkpoints" / f"{step:07d}.pt")["steps"] == step
    assert not (tmp_path / "run/model.pt").exists()
    assert set(figures_at(tmp_path / "run", step)) >= {"generation/frechet_lite0/live", "generation/frechet_lite0/ema"}
    assert not steps_with(tmp_path / "run", "vq_val/")

    extract_with(colours)
    continued = fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path / "run", {})
    assert_same_bits(torch.load(whole), torch.load(continued))
    for at in range(step, 7, step):
        assert figures_at(tmp_path / "run", at) == figures_at(tmp_path / "plain", at)
    steps = [row["step"] for row in rows(tmp_path / "run")]
    assert steps == sorted(steps)


def test_pictures_of_a_step_at_which_a_run_was_stopped_are_made_when_it_resumes(
    extract_with: Callable[[Extractor], None], tmp_path: Path
) -> None:
    extract_with(colours)
    config = watched(generation_every=3, generation_images=4, grids_every=3, grid_images=2, at_step_1=False)
    stage = tiny.stage("ar", config)
    finish = stage.finish_update

    def stop_after_two() -> None:
        finish()
        if stage.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stage.finish_update = stop_after_two  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        fit(stage, tiny.Noise(), tmp_path, {})
    assert stage.step == 3
    assert not (tmp_path / "images").exists()
    fit(tiny.stage("ar", config), tiny.Noise(), tmp_path, {})
    assert steps_with(tmp_path, "generation/") == [3, 6]
    assert (tmp_path / "images/0000003-samples.png").exists()


@pytest.mark.slow
def test_two_processes_stop_a_monitor_together_and_measure_the_same_as_one(tmp_path: Path) -> None:
    """A signal reaches one of them during a step with a monitor."""
    watch = {"generation_every": 3, "generation_images": 20, "grids_every": 3, "grid_images": 2, "batch_size": 4}
    no_dropout = {**tiny.VALUES["ar"], "token_dropout_p": 0.0, "resid_dropout_p": 0.0, "ffn_dropout_p": 0.0}
    job = {"phase": "e2e", "config": {"watch": watch, "ar": no_dropout}, "dtype": "float64", "stage": {"steps": 3}}
    spawn.run([{**job, "out": tmp_path / "one"}], 1, tmp_path)
    spawn.run([{**job, "out": tmp_path / "two", "stop_at": 3}], 2, tmp_path)
    assert {(tmp_path / "two" / f"stopped.{rank}").read_text() for rank in (0, 1)} == {"3"}
    assert not steps_with(tmp_path / "two", "generation/")
    spawn.run([{**job, "out": tmp_path / "two"}], 2, tmp_path)
    one, two = (figures_at(tmp_path / name, 3) for name in ("one", "two"))
    for name in ("generation/frechet_lite0/live", "generation/frechet_lite0/ema"):
        assert two[name] == pytest.approx(one[name], rel=1e-6), name


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
    with pytest.raises(UserError, match="choose from tensorboard and wandb"):
        watched(track="tensorbored")
