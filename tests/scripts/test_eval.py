"""The evaluation scripts: which `harness run` they start for the reference's variables, and what they refuse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import by_benchmark
from harness.cli.run import run
from tests.scripts.shell import ROOT, option, options, sh, words

SCRIPTS = ROOT / "eval"
BENCHMARKS = {
    "eval_gfid.sh": "adm",
    "eval_tokenizer.sh": "recon",
    "eval_geneval.sh": "geneval",
    "eval_dpgbench.sh": "dpg",
    "eval_wise.sh": "wise",
    "eval_gpic.sh": "gpic",
    "eval_coco.sh": "coco",
}
GUIDANCE = {"adm": "1.0", "geneval": "4.0", "dpg": "4.0", "wise": "4.0", "gpic": "1", "coco": "1.5"}
OF_TEXT = ("eval_geneval.sh", "eval_dpgbench.sh", "eval_wise.sh", "eval_gpic.sh", "eval_coco.sh")
MODEL = {
    "CKPT": "/my models/1b.pt",
    "VQ_CKPT": "/my models/gear-vq.pt",
    "TEXT_ENCODER": "Qwen/Qwen3-1.7B",
}
# Every variable of the reference's driver, as its users set them.
EVERYTHING: dict[str, dict[str, object]] = {
    "eval_geneval.sh": {"DETECTOR_PATH": "/d/m2f.pth", "CACHE_DIR": "/c", "GENEVAL_ENV": "g", "PROMPTS_JSONL": "/p"},
    "eval_dpgbench.sh": {"MPLUG_PATH": "/m p", "DPG_ENV": "d", "DPG_CSV": "/d.csv", "PROMPTS_JSON": "/p.json"},
    "eval_wise.sh": {
        "QWEN_MODEL_PATH": "/m/qwen",
        "VLLM_PORT": 8000,
        "TENSOR_PARALLEL_SIZE": 1,
        "SERVE_TIMEOUT": 1800,
        "MAX_WORKERS": 96,
        "JUDGE_MODEL": "qwen",
        "DATA_DIR": "/w",
    },
    "eval_gpic.sh": {"PROMPTS_JSONL": "/p.jsonl", "TEST_STATS": "/t.npz"},
    "eval_coco.sh": {"COCO_DATASET_PATH": "/c", "INCEPTION_BS": 16, "NUM_SAMPLES": 5000, "COCO_IMAGE_SIZE": 256},
    "eval_gfid.sh": {"REF_NPZ": "/r.npz", "TEMP": 0.9, "FID_NUM": 1000, "NUM_PROCESSES": 8, "OUT_DIR": "/o"},
    "eval_tokenizer.sh": {
        "TOKENIZER": "lfq",
        "SOURCE": "ours",
        "USE_EMA": 0,
        "BATCH_SIZE": 16,
        "MAX_SAMPLES": 64,
        "VAL_RESIZE_MODE": "bilinear",
        "OUT_DIR": "/o",
        "NPROC_PER_NODE": 2,
        "MASTER_PORT": 29500,
        "DATA_DIR": "/imagenet val",
        "OURS_CKPT": "/gear-lfq.pt",
        "VQ_OFFICIAL_CKPT": "/v",
        "LFQ_OFFICIAL_CKPT": "/l",
        "IBQ_OFFICIAL_CKPT": "/i",
    },
}
COMMON = {"EXP_NAME": "mine", "AR_MODEL": "LlamaGen-1B", "TEXT_MAX_LEN": 300, "PER_PROC_BS": 8, "CFG_SCALE": 2}


def command_of(script: str, *arguments: str, **settings: object) -> list[str]:
    return words(SCRIPTS / script, *arguments, **settings)


def given(script: str) -> dict[str, object]:
    """Everything that the reference's users may set for a script."""
    text = {**MODEL, "OUTPUT_DIR": "/o", "NUM_PROC": 4} if script in OF_TEXT else {"CKPT": "/c.pt", "VQ_CKPT": "/v.pt"}
    return {**text, **COMMON, **EVERYTHING[script]}


@pytest.mark.parametrize(("script", "benchmark"), BENCHMARKS.items())
def test_a_script_is_a_run_of_its_benchmark_with_the_references_guidance(script: str, benchmark: str) -> None:
    command = command_of(script, "--limit", "8", **MODEL)
    assert command[:6] == ["python3", "-m", "harness", "run", "--benchmark", benchmark]
    assert command[-2:] == ["--limit", "8"]
    assert option(command, "--gpus") == "1"
    if benchmark in GUIDANCE:
        assert option(command, "--ckpt") == MODEL["CKPT"]
        assert options(command, "--protocol")[0] == f"cfg_scale={GUIDANCE[benchmark]}"


@pytest.mark.parametrize("script", BENCHMARKS)
def test_the_harness_takes_every_option_asset_and_setting_that_a_script_writes(script: str) -> None:
    catalog = Catalog.load(find_project())
    with run.make_context("run", command_of(script, **given(script))[4:], resilient_parsing=False) as parsed:
        values = parsed.params
    (name,) = values["benchmarks"]
    benchmark = catalog.benchmark(name)
    assert set(values["assets"]) <= set(benchmark.needed_assets) | {str(benchmark.requests.get("images"))}
    benchmark.read_options(by_benchmark(values["options"]).get(name, {}))


@pytest.mark.parametrize("script", OF_TEXT)
def test_the_settings_of_all_drivers_become_options(script: str) -> None:
    command = command_of(script, **MODEL, **COMMON, NUM_PROC=4, IMAGE_SIZE=384, OUTPUT_DIR="/my runs")
    assert (option(command, "--vq-ckpt"), option(command, "--runs")) == (MODEL["VQ_CKPT"], "/my runs")
    assert option(command, "--text-encoder") == "hf://Qwen/Qwen3-1.7B"
    assert option(command, "--name") == f"mine-{BENCHMARKS[script]}"
    assert (option(command, "--gpus"), options(command, "--protocol")) == ("4", ["cfg_scale=2"])
    assert options(command, "--draw") == ["trained-size=384", "tile=8"]


def test_assets_go_by_the_names_of_the_harness() -> None:
    assert options(command_of("eval_geneval.sh", **given("eval_geneval.sh")), "--asset") == [
        "mask2former-swin-s=/d/m2f.pth",
        "geneval-prompts=/p",
    ]
    assert options(command_of("eval_dpgbench.sh", **given("eval_dpgbench.sh")), "--asset") == [
        "mplug-vqa-weights=/m p/pytorch_model.bin",
        "mplug-vqa-config=/m p/config.yaml",
        "mplug-vqa-bert-config=/m p/config_bert.json",
        "mplug-vqa-configuration=/m p/configuration.json",
        "mplug-vqa-vocabulary=/m p/vocab.txt",
        "dpg-questions=/d.csv",
        "dpg-prompts=/p.json",
    ]
    gpic = command_of("eval_gpic.sh", **given("eval_gpic.sh"))
    assert options(gpic, "--asset") == ["gpic-prompts=/p.jsonl", "gpic-reference=/t.npz"]
    coco = command_of("eval_coco.sh", **given("eval_coco.sh"))
    assert options(coco, "--asset") == ["coco-val2017=/c"]
    assert options(coco, "--set") == ["coco.num_samples=5000", "coco.image_size=256", "coco.batch_size=16"]


def test_the_detector_may_be_named_by_its_folder(tmp_path: Path) -> None:
    weights = tmp_path / "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth"
    weights.touch()
    command = command_of("eval_geneval.sh", **MODEL, DETECTOR_PATH=tmp_path)
    assert option(command, "--asset") == f"mask2former-swin-s={weights}"
    (tmp_path / "other.pth").touch()
    done = sh(SCRIPTS / "eval_geneval.sh", DRY_RUN=1, **MODEL, DETECTOR_PATH=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not hold one file *.pth; name the file" in done.stderr


def test_the_clip_of_coco_may_be_a_folder(tmp_path: Path) -> None:
    command = command_of("eval_coco.sh", **MODEL, CLIP_MODEL=tmp_path)
    assert options(command, "--asset") == [
        f"clip-vit-b32-config={tmp_path}/config.json",
        f"clip-vit-b32-weights={tmp_path}/model.safetensors",
        f"clip-vit-b32-vocab={tmp_path}/vocab.json",
        f"clip-vit-b32-merges={tmp_path}/merges.txt",
    ]
    assert "--asset" not in command_of("eval_coco.sh", **MODEL, CLIP_MODEL="openai/clip-vit-base-patch32")


def test_the_judge_is_named_in_the_environment_that_is_printed() -> None:
    def lines(**settings: object) -> list[list[str]]:
        done = sh(SCRIPTS / "eval_wise.sh", DRY_RUN=1, **MODEL, **settings)
        return [shlex.split(line) for line in done.stdout.splitlines()[:-1]]

    assert lines() == [
        ["export", "HARNESS_JUDGE_MODEL=Qwen/Qwen3.5-35B-A3B"],
        ["export", "HARNESS_JUDGE_CONCURRENCY=96"],
    ]
    assert lines(QWEN_MODEL_PATH="/my qwen", MAX_WORKERS=8) == [
        ["export", "HARNESS_JUDGE_MODEL=/my qwen"],
        ["export", "HARNESS_JUDGE_CONCURRENCY=8"],
    ]
    running = {"HARNESS_JUDGE_URL": "http://127.0.0.1:8000/v1", "HARNESS_JUDGE_CONCURRENCY": 4}
    assert lines(**running) == [["export", "HARNESS_JUDGE_CONCURRENCY=4"]]
    command = command_of("eval_wise.sh", **given("eval_wise.sh"))
    assert options(command, "--set") == ["wise.judge=qwen"]
    assert options(command, "--asset")[0] == "wise-cultural-common-sense=/w/cultural_common_sense_verified.json"


def test_all_images_of_gfid_are_no_limit() -> None:
    command = command_of("eval_gfid.sh", CKPT="/c.pt", FID_NUM=50000)
    assert "--limit" not in command and "--text-encoder" not in command
    command = command_of("eval_gfid.sh", **given("eval_gfid.sh"))
    assert (option(command, "--limit"), option(command, "--gpus"), option(command, "--runs")) == ("1000", "8", "/o")
    assert options(command, "--protocol") == ["cfg_scale=2", "temperature=0.9"]
    assert option(command, "--asset") == "adm-imagenet256-reference=/r.npz"


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({}, "hf://BinLin203/GEAR-VQ/gear-vq.pt"),
        ({"TOKENIZER": "ibq"}, "hf://BinLin203/GEAR-IBQ/gear-ibq.pt"),
        ({"OURS_CKPT": "/my run"}, "/my run"),
        ({"SOURCE": "official"}, "hf://FoundationVision/LlamaGen/vq_ds16_c2i.pt"),
        ({"SOURCE": "official", "TOKENIZER": "lfq", "LFQ_OFFICIAL_CKPT": "/l.ckpt"}, "/l.ckpt"),
    ],
)
def test_a_tokenizer_is_the_users_or_the_published_one(settings: dict[str, object], source: str) -> None:
    assert option(command_of("eval_tokenizer.sh", **settings), "--tokenizer") == source


def test_the_settings_of_the_tokenizers_evaluation_become_options() -> None:
    command = command_of("eval_tokenizer.sh", **given("eval_tokenizer.sh"))
    assert options(command, "--set") == [
        "recon.ema=false",
        "recon.resize=bilinear",
        "recon.batch_size=16",
        "recon.mean_batch=16",
    ]
    assert (option(command, "--limit"), option(command, "--gpus")) == ("64", "2")
    assert option(command, "--asset") == "imagenet-val=/imagenet val"
    assert "--limit" not in command_of("eval_tokenizer.sh", MAX_SAMPLES=0)


def test_a_variable_without_a_meaning_here_is_named_with_its_reason() -> None:
    done = sh(SCRIPTS / "eval_geneval.sh", DRY_RUN=1, **given("eval_geneval.sh"))
    assert [line.removeprefix("note: eval_geneval.sh does not use ") for line in done.stderr.splitlines()] == [
        "AR_MODEL: the model's file says it.",
        "CACHE_DIR: CLIP is an asset: --asset clip-vit-l-14=FILE.",
        "GENEVAL_ENV: each scorer has an environment of its own, from its lock file.",
        "TEXT_MAX_LEN: the model's file says it.",
    ]


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("eval_geneval.sh", {}, "CKPT is not set; name the model: CKPT=FILE, a checkpoint or a run folder."),
        ("eval_geneval.sh", {"CKPT": "/c", "PROMPTS_JSNOL": "/p"}, ".* PROMPTS_JSNOL; did you mean PROMPTS_JSONL?"),
        (
            "eval_coco.sh",
            {"CKPT": "/c", "COCO_PATH": "/p"},
            ".*COCO_PATH; unset it, or choose from COCO_DATASET_",
        ),
        ("eval_coco.sh", {"CKPT": "/c", "CLIP_MODEL": "openai/other"}, "CLIP_MODEL is 'openai/other'; give the folder"),
        ("eval_gfid.sh", {"CKPT": "/c", "FID_NUMS": 8}, "no script has a setting FID_NUMS; did you mean FID_NUM?"),
        ("eval_gfid.sh", {"CKPT": "/c", "TEMP": "/tmp"}, "TEMP is '/tmp'; it must be a number."),
        ("eval_wise.sh", {"CKPT": "/c", "MAX_WORKERS": "all"}, "MAX_WORKERS is 'all'; it must be a number."),
        ("eval_tokenizer.sh", {"TOKENIZER": "vqgan"}, "TOKENIZER is 'vqgan'; choose one of vq, lfq, ibq."),
        ("eval_tokenizer.sh", {"SOURCE": "theirs"}, "SOURCE is 'theirs'; choose one of ours, official."),
        ("eval_tokenizer.sh", {"USE_EMA": "yes"}, "USE_EMA is 'yes'; choose one of 1, 0."),
    ],
)
def test_a_setting_that_is_not_known_is_refused_in_a_sentence(
    script: str, settings: dict[str, object], message: str
) -> None:
    done = sh(SCRIPTS / script, DRY_RUN=1, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"error: {message}", done.stderr), done.stderr


def test_the_command_is_printed_and_then_run_with_the_arguments() -> None:
    done = sh(SCRIPTS / "eval_gfid.sh", "--limit", "8", CKPT="/no/such model.pt")
    assert done.returncode == 2
    assert shlex.split(done.stdout.splitlines()[0])[-2:] == ["--limit", "8"]
    assert "/no/such model.pt" in done.stderr


def test_a_run_of_ours_is_named_by_its_name() -> None:
    assert option(command_of("eval_gfid.sh", EXP_NAME="my-run"), "--ckpt") == "exps/my-run"
