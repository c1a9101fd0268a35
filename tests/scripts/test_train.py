"""The training scripts: what they start for which settings, in which folder, and what they refuse."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gear.presets import families, read_preset

SCRIPTS = Path(__file__).parents[2] / "scripts" / "train"
ENTRY_POINTS = sorted(path.name for path in SCRIPTS.glob("train_*.sh"))
STAGE_SCRIPTS = [name for name in ENTRY_POINTS if name != "train_e2e.sh"]
LAUNCH = shlex.split(
    "python3 -m gear.training.launch --nproc_per_node 8 --nnodes 2 --node_rank 1 --master_addr node0 "
    "--master_port 29501 train"
)


def environment(**settings: object) -> dict[str, str]:
    """Nothing of this process's own settings; `python3` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/tmp"), **{name: str(v) for name, v in settings.items()}}


def sh(script: str, *arguments: str, cwd: Path | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, env=environment(**settings), cwd=cwd, capture_output=True, text=True)


def words(script: str, *arguments: str, **settings: object) -> list[str]:
    """The words of the command that a script would start."""
    done = sh(script, *arguments, DRY_RUN=1, **settings)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


def option(command: list[str], name: str) -> str | None:
    return command[command.index(name) + 1] if name in command else None


@pytest.mark.parametrize(
    ("script", "settings", "preset", "folder"),
    [
        ("train_tokenizer.sh", {}, "imagenet-b-vq-dinov2", "vq16-stage0-bs256-400k"),
        ("train_tokenizer.sh", {"TOKENIZER": "ibq"}, "imagenet-b-ibq-dinov2", "ibq16-stage0-bs256-400k"),
        ("train_gear.sh", {}, "imagenet-xl-vq-dinov2-256px", "stage1-vq-dinov2-xl-temp0.1-coeff0.5-256px"),
        (
            "train_gear.sh",
            {"SIZE": "l", "TOKENIZER": "lfq", "ENCODER": "siglip2", "IMAGE_SIZE": 512, "TEMPERATURE": 0.01},
            "imagenet-l-lfq-siglip2-512px",
            "stage1-lfq-siglip2-l-temp0.01-coeff0.5-512px",
        ),
        ("train_ar_gear.sh", {}, "imagenet-xl-vq-dinov2-256px-ar-init", "stage2-gear-ar-init-vq-dinov2-xl"),
        (
            "train_ar_gear.sh",
            {"GEAR_MODE": "vq-only", "SIZE": "b"},
            "imagenet-b-vq-dinov2-256px-vq-only",
            "stage2-gear-vq-only-vq-dinov2-b",
        ),
        (
            "train_ar_llamagen_repa.sh",
            {"SIZE": "l"},
            "imagenet-l-vq-dinov2-256px-llamagen-repa",
            "stage2-llamagen-repa-vq-dinov2-l-4m",
        ),
        ("train_t2i_gpic.sh", {}, "t2i-gpic-gear-1b", "t2i-gpic-gear-1b"),
        ("train_t2i_gpic.sh", {"T2I_SIZE": "b"}, "t2i-gpic-gear-b", "t2i-gpic-gear-b"),
        ("train_t2i_gpic.sh", {"RECIPE": "llamagen-repa"}, "t2i-gpic-llamagen-repa-1b", "t2i-gpic-llamagen-repa-1b"),
    ],
)
def test_settings_become_a_preset_and_the_published_name_of_the_run(
    script: str, settings: dict[str, object], preset: str, folder: str
) -> None:
    command = words(script, DATA_DIR="/data", OUT_DIR="/runs", **settings)
    assert option(command, "--preset") == preset
    assert option(command, "--out") == f"/runs/{folder}"
    assert option(command, "--data-dir") == "/data"


@pytest.mark.parametrize(
    ("script", "settings", "name", "start"),
    [
        ("train_gear.sh", {}, "--init", None),  # the published warm-up, which the preset names
        ("train_gear.sh", {"ENCODER": "lite0"}, "--init", "/runs/vq16-stage0-lite0-bs256-400k"),
        ("train_gear.sh", {"INIT": "/my model.pt"}, "--init", "/my model.pt"),
        ("train_ar_gear.sh", {}, "--init", "/runs/stage1-vq-dinov2-xl-temp0.1-coeff0.5-256px"),
        ("train_ar_gear.sh", {"TEMPERATURE": 0.05}, "--init", "/runs/stage1-vq-dinov2-xl-temp0.05-coeff0.5-256px"),
        (
            "train_ar_gear.sh",
            {"GEAR_MODE": "vq-only"},
            "--tokenizer",
            "/runs/stage1-vq-dinov2-xl-temp0.1-coeff0.5-256px",
        ),
        ("train_ar_llamagen_repa.sh", {}, "--tokenizer", "/runs/vq16-stage0-bs256-400k"),
        ("train_t2i_gpic.sh", {}, "--tokenizer", "/runs/stage1-vq-dinov2-xl-temp0.1-coeff0.5-256px"),
        ("train_t2i_gpic.sh", {"RECIPE": "llamagen-repa"}, "--tokenizer", "/runs/vq16-stage0-bs256-400k"),
    ],
)
def test_a_stage_starts_from_the_run_of_the_stage_before(
    script: str, settings: dict[str, object], name: str, start: str | None
) -> None:
    command = words(script, DATA_DIR="/data", OUT_DIR="/runs", **settings)
    assert option(command, name) == start
    assert option(command, "--tokenizer" if name == "--init" else "--init") is None


def test_a_finished_stage_0_is_taken_before_the_published_warm_up(tmp_path: Path) -> None:
    (tmp_path / "vq16-stage0-bs256-400k").mkdir()
    (tmp_path / "vq16-stage0-bs256-400k" / "model.pt").touch()
    command = words("train_gear.sh", DATA_DIR="/data", OUT_DIR=tmp_path)
    assert option(command, "--init") == str(tmp_path / "vq16-stage0-bs256-400k")


@pytest.mark.parametrize("script", STAGE_SCRIPTS)
def test_several_processes_are_started_by_torchrun_with_their_exit_status(script: str) -> None:
    nodes = {"NPROC_PER_NODE": 8, "NNODES": 2, "NODE_RANK": 1, "MASTER_ADDR": "node0", "MASTER_PORT": 29501}
    assert words(script, DATA_DIR="/data", **nodes)[: len(LAUNCH)] == LAUNCH
    assert words(script, DATA_DIR="/data", NPROC_PER_NODE=1)[:4] == ["python3", "-m", "gear", "train"]


def test_numbers_become_fields_of_the_configuration() -> None:
    command = words(
        "train_gear.sh",
        "--device",
        "cuda",
        DATA_DIR="/data",
        TEMPERATURE=0.05,
        VAE_ALIGN_PROJ_COEFF=0.75,
        SPNORM_ALPHA=0.4,
        MAX_TRAIN_STEPS=100,
        EVAL_STEPS=50,
        VQ_EVAL_STEPS=25,
        SET="engine.compile=true watch.track=wandb",
    )
    assert [word for before, word in itertools.pairwise(command) if before == "--set"] == [
        "gear.temperature=0.05",
        "gear.tokenizer_align_coeff=0.75",
        "teacher.spatial_norm_alpha=0.4",
        "stages.e2e.steps=100",
        "watch.generation_every=50",
        "watch.reconstruction_every=25",
        "engine.compile=true",
        "watch.track=wandb",
    ]
    assert option(command, "--device") == "cuda"


def test_monitors_are_on_where_their_data_are_named() -> None:
    for script, often in (("train_tokenizer.sh", "25000"), ("train_gear.sh", "50000")):
        command = words(script, DATA_DIR="/data", FID_REFERENCE_FILE="/ref.npz", VQ_EVAL_DATA_DIR="/val", EVAL_STEPS=0)
        assert [word for before, word in itertools.pairwise(command) if before == "--set"] == [
            "watch.generation_every=0",
            "watch.reference=/ref.npz",
            f"watch.reconstruction_every={often}",
            "watch.validation_dir=/val",
        ]
    assert "watch.generation_every=50000" in words("train_gear.sh", DATA_DIR="/data", FID_REFERENCE_FILE="/ref.npz")
    assert "--set" not in words("train_gear.sh", DATA_DIR="/data")


def test_epochs_and_steps_of_text_to_image_are_fields_too() -> None:
    command = words("train_t2i_gpic.sh", DATA_DIR="/data", EPOCHS=2, SAMPLES_PER_EPOCH=257, MAX_TRAIN_STEPS=9)
    assert [word for before, word in itertools.pairwise(command) if before == "--set"] == [
        "stages.t2i.epochs=2",
        "stages.t2i.samples_per_epoch=257",
        "stages.t2i.steps=9",
    ]


def test_coco_is_watched_where_its_data_are_named() -> None:
    for steps, every in (({}, "50000"), ({"COCO_STEPS": 100}, "100")):
        command = words("train_t2i_gpic.sh", DATA_DIR="/data", COCO_DIR="/coco", **steps)
        assert [word for before, word in itertools.pairwise(command) if before == "--set"] == [
            "watch.coco_dir=/coco",
            f"watch.coco_every={every}",
        ]


def test_the_command_can_be_read_back_by_a_shell() -> None:
    command = words("train_gear.sh", DATA_DIR="/data/it's here", SET="name=$(reboot)")
    assert option(command, "--data-dir") == "/data/it's here"
    assert option(command, "--set") == "name=$(reboot)"


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        (
            "train_tokenizer.sh",
            {"TOKENIZER": "vqgan"},
            "no preset named 'imagenet-b-vqgan-dinov2'.*'vqgan-dinov2' is none of them; choose from vq, lfq, ibq",
        ),
        ("train_gear.sh", {"SIZE": "xxl"}, "no preset named .*'xxl-vq-dinov2-256px' is none of them; "),
        (
            "train_gear.sh",
            {"ENCODER": "dino"},
            "no preset named .*'dino-256px' is none of them; did you mean dinov3?",
        ),
        ("train_gear.sh", {"IMAGE_SIZE": "300"}, "no preset named .*'300px' is none of them; "),
        ("train_gear.sh", {"TEMPERATURE": "cold"}, "TEMPERATURE is 'cold'; it must be a number."),
        ("train_gear.sh", {"NPROC_PER_NODE": "two"}, "NPROC_PER_NODE is 'two'; it must be a number."),
        ("train_ar_gear.sh", {"GEAR_MODE": "both"}, "GEAR_MODE is 'both'; choose one of ar-init, vq-only."),
        ("train_t2i_gpic.sh", {"RECIPE": "repa"}, "RECIPE is 'repa'; choose one of gear, llamagen-repa."),
        ("train_t2i_gpic.sh", {"COCO_STEPS": 100}, "COCO_STEPS is set but COCO_DIR is not; name the folder"),
        ("train_t2i_gpic.sh", {"T2I_SIZE": "2b"}, "no preset named 't2i-gpic-gear-2b': .*'2b' is none of them; "),
        ("train_t2i_gpic.sh", {"TOKENIZER": "lfq"}, "TOKENIZER is 'lfq'; choose one of vq."),
        ("train_e2e.sh", {"TOKENIZER": "vqgan"}, "no preset named 'imagenet-b-vqgan-dinov2'"),
    ],
)
def test_a_setting_that_is_not_known_is_refused_in_a_sentence(
    script: str, settings: dict[str, object], message: str
) -> None:
    done = sh(script, DRY_RUN=1, DATA_DIR="/data", **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"error: {message}", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("script", "made_by"),
    [("train_ar_gear.sh", "train_gear.sh"), ("train_ar_llamagen_repa.sh", "train_tokenizer.sh")],
)
def test_a_stage_whose_start_is_not_trained_yet_names_the_script_that_does_it(
    script: str, made_by: str, tmp_path: Path
) -> None:
    done = sh(script, DATA_DIR="/data", OUT_DIR=tmp_path)
    assert done.returncode == 2
    assert f"holds no finished model; train it with scripts/train/{made_by}, or name another with INIT" in done.stderr


def test_every_choice_of_the_presets_is_one_of_the_scripts() -> None:
    """The scripts hold no list of their own: a value that a preset file gains is known at once."""
    (family,) = (family for family in families() if family.stem == "imagenet")
    axes = {axis.name: list(axis.values) for axis in family.axes}
    settings = {"SIZE": axes["size"], "TOKENIZER": axes["tokenizer"], "ENCODER": axes["teacher"]}
    settings["IMAGE_SIZE"] = [size.removesuffix("px") for size in axes["image_size"]]
    for name, values in settings.items():
        preset = option(words("train_gear.sh", DATA_DIR="/data", INIT="/model.pt", **{name: values[-1]}), "--preset")
        assert preset is not None
        assert values[-1] in preset
    modes = (SCRIPTS / "train_ar_gear.sh").read_text().partition("choose GEAR_MODE ")[2].splitlines()[0].split()
    assert {*modes, "llamagen-repa"} == set(axes["recipe"])


@pytest.mark.parametrize("script", STAGE_SCRIPTS)
def test_the_preset_that_a_script_spells_exists(script: str) -> None:
    preset = option(words(script, DATA_DIR="/data"), "--preset")
    assert preset is not None
    assert read_preset(preset)["name"] == preset


def test_the_values_in_the_names_of_runs_are_the_presets_own() -> None:
    gear = read_preset("imagenet-xl-vq")["gear"]
    folder = option(words("train_gear.sh", DATA_DIR="/data"), "--out")
    assert folder is not None
    assert f"temp{gear['temperature']}-coeff{gear['tokenizer_align_coeff']}-" in folder


def test_the_digits_have_a_folder_per_run_and_need_no_settings() -> None:
    folders = [option(words(script), "--out") for script in STAGE_SCRIPTS]
    folders += [option(words("train_ar_gear.sh", GEAR_MODE="vq-only"), "--out")]
    assert len(set(folders)) == len(folders)
    assert "exps/demo/e2e" in folders
    for script in STAGE_SCRIPTS:
        preset = option(words(script), "--preset")
        assert preset == ("digits-t2i" if "t2i" in script else "demo")


TINY = (
    "stages.tokenizer.steps=3 stages.e2e.steps=2 stages.ar.steps=2 tokenizer.ch=32 stages.tokenizer.batch_size=4 "
    "stages.e2e.batch_size=4 stages.ar.batch_size=4"
)


@pytest.mark.slow
def test_the_digits_are_trained_from_nothing_stage_by_stage(tmp_path: Path) -> None:
    for script in ("train_e2e.sh", "train_ar_gear.sh"):
        done = sh(script, "--device", "cpu", cwd=tmp_path, SET=TINY, OMP_NUM_THREADS=1)
        assert done.returncode == 0, done.stderr
    for stage in ("tokenizer", "e2e", "ar"):
        assert (tmp_path / "exps" / "demo" / stage / "model.pt").exists()


@pytest.mark.slow
def test_a_signal_to_the_script_saves_and_is_answered_with_75(tmp_path: Path) -> None:
    settings = {"SET": TINY.replace("stages.tokenizer.steps=3", "stages.tokenizer.steps=100000"), "OMP_NUM_THREADS": 1}
    process = subprocess.Popen(["sh", str(SCRIPTS / "train_e2e.sh")], env=environment(**settings), cwd=tmp_path)
    log = tmp_path / "exps" / "demo" / "tokenizer" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or not log.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert list((tmp_path / "exps" / "demo" / "tokenizer" / "checkpoints").iterdir())
    assert not (tmp_path / "exps" / "demo" / "e2e").exists()
