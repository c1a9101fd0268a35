"""The training scripts: what they start for which settings, in which folder, and what they refuse."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gear.presets import families, read_preset
from harness.runtimes.image import dockerfile_sources
from tests.scripts import shell
from tests.scripts.shell import ROOT, environment, option, options

SCRIPTS = ROOT / "train"
ENTRY_POINTS = sorted(path.name for path in SCRIPTS.glob("train_*.sh"))
STAGE_SCRIPTS = [name for name in ENTRY_POINTS if name != "train_e2e.sh"]
LAUNCH = shlex.split(
    "python3 -m gear.training.launch --nproc_per_node 8 --nnodes 2 --node_rank 1 --master_addr node0 "
    "--master_port 29501 train"
)


def sh(script: str, *arguments: str, cwd: Path | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    return shell.sh(SCRIPTS / script, *arguments, cwd=cwd, **settings)


def words(script: str, *arguments: str, **settings: object) -> list[str]:
    return shell.words(SCRIPTS / script, *arguments, **settings)


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


@pytest.mark.parametrize("dry_run", [0, 1])
def test_a_stage_0_that_is_not_finished_is_not_passed_over(tmp_path: Path, dry_run: int) -> None:
    run = tmp_path / "vq16-stage0-bs256-400k"
    (run / "checkpoints").mkdir(parents=True)
    done = sh("train_gear.sh", DATA_DIR="/data", OUT_DIR=tmp_path, DRY_RUN=dry_run)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(
        f"error: {run} holds no finished model; .*train_tokenizer.sh, or name another with INIT", done.stderr
    )
    published = "hf://BinLin203/Warmup-VQ/vq-with-gan.pt"
    assert option(words("train_gear.sh", DATA_DIR="/data", OUT_DIR=tmp_path, INIT=published), "--init") == published


@pytest.mark.parametrize(
    ("script", "settings", "name", "start"),
    [
        ("train_tokenizer.sh", {"VQ_INIT": "/a.pt", "LFQ_INIT": "/b.ckpt"}, "--init", "/a.pt"),
        ("train_tokenizer.sh", {"TOKENIZER": "lfq", "VQ_INIT": "/a.pt", "LFQ_INIT": "/b.ckpt"}, "--init", "/b.ckpt"),
        ("train_gear.sh", {"VQ_STAGE0_CKPT": "/s 0.pt"}, "--init", "/s 0.pt"),
        ("train_gear.sh", {"TOKENIZER": "ibq", "IBQ_STAGE0_CKPT": "/i.pt"}, "--init", "/i.pt"),
        ("train_gear.sh", {"VQ_STAGE0_CKPT": "/s.pt", "INIT": "/s.pt"}, "--init", "/s.pt"),
        ("train_e2e.sh", {"VQ_STAGE0_CKPT": "/s.pt"}, "--init", "/s.pt"),
        ("train_ar_gear.sh", {"STAGE1_CKPT": "/1.pt"}, "--init", "/1.pt"),
        ("train_ar_gear.sh", {"STAGE1_CKPT": "/1.pt", "GEAR_MODE": "vq-only"}, "--tokenizer", "/1.pt"),
        ("train_ar_llamagen_repa.sh", {"VQ_CKPT": "/0.pt"}, "--tokenizer", "/0.pt"),
        ("train_t2i_gpic.sh", {"VQ_STAGE1_CKPT": "/1.pt", "VQ_STAGE0_CKPT": "/0.pt"}, "--tokenizer", "/1.pt"),
        (
            "train_t2i_gpic.sh",
            {"VQ_STAGE1_CKPT": "/1.pt", "VQ_STAGE0_CKPT": "/0.pt", "RECIPE": "llamagen-repa"},
            "--tokenizer",
            "/0.pt",
        ),
    ],
)
def test_a_stage_starts_from_what_the_references_variable_names(
    script: str, settings: dict[str, object], name: str, start: str
) -> None:
    assert option(words(script, DATA_DIR="/data", **settings), name) == start


def test_the_references_names_of_the_monitors_settings_are_known() -> None:
    command = words("train_gear.sh", DATA_DIR="/data", FID_REF="/my ref.npz", VAL_DATA_DIR="/val", VQ_EVAL_STEPS=7)
    assert options(command, "--set") == [
        "watch.generation_every=50000",
        "watch.reference=/my ref.npz",
        "watch.reconstruction_every=7",
        "watch.validation_dir=/val",
    ]
    coco = {"COCO_FID_PATH": "/coco", "COCO_FID_STEPS": 100, "COCO_FID_NUM": 500, "COCO_FID_CFG": 2.5}
    assert options(words("train_t2i_gpic.sh", DATA_DIR="/data", **coco), "--set") == [
        "watch.coco_dir=/coco",
        "watch.coco_every=100",
        "watch.coco_images=500",
        "watch.coco_cfg_scale=2.5",
    ]


@pytest.mark.parametrize("script", STAGE_SCRIPTS)
def test_a_run_has_the_name_that_the_user_gives_it(script: str) -> None:
    assert option(words(script, DATA_DIR="/data", OUT_DIR="/runs", EXP_NAME="my run"), "--out") == "/runs/my run"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("COCO_FID_STPES", "no script has a setting COCO_FID_STPES; did you mean COCO_FID_STEPS?"),
        ("VQ_STAGE2_CKPT", "no script has a setting VQ_STAGE2_CKPT; did you mean VQ_STAGE[01]_CKPT?"),
        ("VAL_DATA_ROOT", "no script has a setting VAL_DATA_ROOT; unset it, or choose from VAL_DATA_DIR."),
        ("EVAL_STEP", "no script has a setting EVAL_STEP; did you mean EVAL_STEPS?"),
        ("TEMPERATUR", "no script has a setting TEMPERATUR; did you mean TEMPERATURE?"),
        ("SAMPLES_PER_STEP", "no script has a setting SAMPLES_PER_STEP; unset it, or choose from SAMPLES_PER_EPOCH."),
        ("STAGE2_CKPT", "no script has a setting STAGE2_CKPT; did you mean STAGE1_CKPT?"),
    ],
)
@pytest.mark.parametrize("script", ENTRY_POINTS)
def test_an_unknown_variable_of_the_family_is_refused_by_name(script: str, name: str, message: str) -> None:
    done = sh(script, DRY_RUN=1, DATA_DIR="/data", **{name: 1})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"error: {message}", done.stderr), done.stderr


def test_variables_of_others_are_let_be() -> None:
    foreign = {"NODE_OPTIONS": "x", "MASTER_KEY": "x", "VLLM_LOGGING_LEVEL": "x", "GEAR_CACHE": "/c", "IMAGE_NAME": "x"}
    done = sh("train_gear.sh", DRY_RUN=1, DATA_DIR="/data", **foreign)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_setting_that_does_nothing_here_is_named_once() -> None:
    settings = {"DATA_DIR": "/data", "DRY_RUN": 1, "COCO_FID_STEPS": 9, "LFQ_STAGE0_CKPT": "/l.pt", "CFG_SCALE": 4}
    assert sh("train_gear.sh", **settings).stderr.splitlines() == [
        "note: train_gear.sh does not use CFG_SCALE: it is a setting of other scripts.",
        "note: train_gear.sh does not use COCO_FID_STEPS: it is a setting of other scripts.",
        "note: train_gear.sh does not use LFQ_STAGE0_CKPT: it belongs to another TOKENIZER or RECIPE.",
    ]
    assert sh("train_gear.sh", NOTES=0, **settings).stderr == ""


def test_settings_of_stage_1_are_not_said_to_be_unused_where_both_stages_run(tmp_path: Path) -> None:
    done = sh("train_e2e.sh", DRY_RUN=1, OUT_DIR=tmp_path, DATA_DIR="/data", SIZE="b", TEMPERATURE=0.05)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


def test_both_stages_go_on_from_a_stage_0_that_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "vq16-stage0-bs256-400k").mkdir()
    command = words("train_e2e.sh", OUT_DIR=tmp_path, DATA_DIR="/data")
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
    assert options(command, "--set") == [
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
        assert options(command, "--set") == [
            "watch.generation_every=0",
            "watch.reference=/ref.npz",
            f"watch.reconstruction_every={often}",
            "watch.validation_dir=/val",
        ]
    assert "watch.generation_every=50000" in words("train_gear.sh", DATA_DIR="/data", FID_REFERENCE_FILE="/ref.npz")
    assert "--set" not in words("train_gear.sh", DATA_DIR="/data")


def test_epochs_and_steps_of_text_to_image_are_fields_too() -> None:
    command = words("train_t2i_gpic.sh", DATA_DIR="/data", EPOCHS=2, SAMPLES_PER_EPOCH=257, MAX_TRAIN_STEPS=9)
    assert options(command, "--set") == [
        "stages.t2i.epochs=2",
        "stages.t2i.samples_per_epoch=257",
        "stages.t2i.steps=9",
    ]


def test_coco_is_watched_where_its_data_are_named() -> None:
    for steps, every in (({}, "50000"), ({"COCO_STEPS": 100}, "100")):
        command = words("train_t2i_gpic.sh", DATA_DIR="/data", COCO_DIR="/coco", **steps)
        assert options(command, "--set") == [
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
        ("train_t2i_gpic.sh", {"COCO_FID_NUM": 100}, "COCO_FID_NUM is set but COCO_DIR is not; name the folder"),
        ("train_t2i_gpic.sh", {"COCO_FID_CFG": "high"}, "COCO_FID_CFG is 'high'; it must be a number."),
        ("train_gear.sh", {"TOKENIZER": "a;b"}, "TOKENIZER is 'a;b'; choose one of vq, lfq, ibq."),
        ("train_gear.sh", {"INIT": "/a", "VQ_STAGE0_CKPT": "/b"}, "INIT is '/a', and VQ_STAGE0_CKPT, the reference's"),
        ("train_e2e.sh", {"EXP_NAME": "mine"}, "EXP_NAME names one run, but this script makes two; set OUT_DIR"),
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
    assert {*modes, "llamagen-repa", "no-repa"} == set(axes["recipe"])


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


def test_the_image_has_all_that_the_training_scripts_read():
    """They are its commands in compose.yaml."""
    copied = dockerfile_sources((ROOT.parent / "docker/core/Dockerfile").read_text(encoding="utf-8"), {})
    read = set()
    for script in [*SCRIPTS.glob("*.sh"), ROOT / "settings.sh"]:
        for name in re.findall(r'"\$\(dirname "\$0"\)/([\w./]+)"', script.read_text(encoding="utf-8")):
            read.add((SCRIPTS / name).resolve().relative_to(ROOT.parent).as_posix())
    assert {"scripts/settings.sh", "scripts/settings.py", "scripts/train/common.sh"} <= read
    assert not [name for name in read if not any(name == one or name.startswith(f"{one}/") for one in copied)]
