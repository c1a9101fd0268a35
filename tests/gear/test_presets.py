"""Presets against the published tables: each name gives the numbers of its row, and its models can be built."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants

from gear.ar.model import ClassConditionalAR
from gear.cli import main
from gear.config import RunConfig, load_config
from gear.presets import families, preset_names, read_preset, single_presets
from gear.required_files import frozen_digests, required_files
from gear.tokenizers import TOKENIZERS, build_tokenizer
from gear.training.watching.grids import TOP_K
from harness.contract.digest import sha256_file
from harness.contract.errors import MissingAsset, UserError
from tests.gear.packages import installed_lpips

# The table of the published training scripts, and the counts of the models' own table.
SIZES = {"b": ("LlamaGen-B", 4, 12, 768, 110_888_448), "l": ("LlamaGen-L", 8, 24, 1024, 342_910_976),
         "xl": ("LlamaGen-XL", 12, 36, 1280, 774_699_520)}  # fmt: skip
CODES = {"vq": ("VQ-16", 8), "lfq": ("LFQ-16", 14), "ibq": ("IBQ-16", 256)}
TEACHERS = {
    "dinov2": ("dinov2-vit-b", "none"),
    "dinov3": ("dinov3-vit-b", "none"),
    "jepa21": ("jepa21-vit-b", "zscore"),
    "siglip2": ("siglip2-vit-b", "zscore"),
    "clip": ("clip-vit-L", "zscore"),
}
TOKENS = {256: 256, 384: 576, 512: 1024}
TEACHERS_AT = {256: set(TEACHERS), 384: {"dinov2"}, 512: {"dinov2", "dinov3", "jepa21", "siglip2"}}
AR_STEPS = {"ar-init": 3_600_000, "vq-only": 4_000_000, "llamagen-repa": 4_000_000, "no-repa": 4_000_000}

GRID = list(itertools.product(SIZES, CODES))


@pytest.mark.parametrize(("size", "tokenizer"), GRID)
def test_a_size_and_a_tokenizer_have_the_published_numbers_and_build(size: str, tokenizer: str) -> None:
    config = load_config(f"imagenet-{size}-{tokenizer}")
    model, tap, blocks, width, parameters = SIZES[size]
    family, code_dim = CODES[tokenizer]
    assert (config.gear.tap_layer, config.ar.n_layer, config.ar.dim) == (tap, blocks, width)
    assert config.tokenizer == TOKENIZERS[family]
    assert (config.tokenizer.num_codes, config.tokenizer.code_dim, config.tokenizer.downsample) == (
        16_384,
        code_dim,
        16,
    )
    with torch.device("meta"):
        ar = ClassConditionalAR(config.class_ar)
        build_tokenizer(config.tokenizer)
    assert sum(parameter.numel() for parameter in ar.parameters()) == parameters, model


@pytest.mark.parametrize(("size", "tokenizer"), GRID)
def test_what_all_recipes_share_is_as_published(size: str, tokenizer: str) -> None:
    config = load_config(f"imagenet-{size}-{tokenizer}")
    gear, loss = config.gear, config.loss
    assert (gear.temperature, gear.tokenizer_align_coeff, gear.align_coeff) == (0.1, 0.5, 0.5)
    assert (gear.projector_dim, gear.straight_through, config.seed, config.precision) == (2048, False, 0, "bf16")
    assert (config.tokenizer.entropy_loss_ratio, config.tokenizer.commit_loss_beta) == (0.05, 0.25)
    assert (loss.reconstruction_loss, loss.reconstruction_weight, loss.perceptual_weight) == ("l1", 1.0, 1.0)
    assert (loss.discriminator_start, loss.discriminator_factor, loss.discriminator_weight) == (0, 1.0, 0.1)
    assert (loss.quantizer_weight, loss.entropy_weight, loss.lecam_regularization_weight) == (1.0, 1.0, 0.0)
    assert (config.discriminator.ndf, config.discriminator.n_layers, config.discriminator.norm) == (64, 3, "batch")
    assert (config.class_ar.num_classes, config.class_ar.class_dropout_prob) == (1000, 0.1)
    assert (config.data.random_hflip, config.perceptual.name) == (True, "lpips")
    assert {phase: stage.steps for phase, stage in config.stages.items()} == {
        "tokenizer": 400_000,
        "e2e": 400_000,
        "ar": 3_600_000,
    }
    for phase, stage in config.stages.items():
        assert (stage.batch_size, stage.max_grad_norm, stage.ema_decay) == (256, 1.0, 0.9999)
        assert stage.ar.warmup_steps == (0 if phase == "ar" else 1), "stage 2 is published without a warm-up"
        for optimizer in (stage.tokenizer, stage.discriminator, stage.ar):
            assert (optimizer.lr, optimizer.beta1, optimizer.beta2, optimizer.eps) == (1e-4, 0.9, 0.999, 1e-8)
            assert (optimizer.weight_decay, optimizer.schedule) == (0.0, "constant")


@pytest.mark.parametrize("image_size", TOKENS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_teachers_have_their_spatial_norm_and_their_image_sizes(teacher: str, image_size: int) -> None:
    name = f"imagenet-xl-vq-{teacher}-{image_size}px"
    if teacher not in TEACHERS_AT[image_size]:
        with pytest.raises(UserError, match=f"{teacher} is used at .* px, not at {image_size}"):
            load_config(name)
        return
    config = load_config(name)
    assert (config.teacher.name, config.teacher.spatial_norm) == TEACHERS[teacher]
    assert (config.teacher.spatial_norm_alpha, config.teacher.layer) == (0.6, -1)
    assert (config.data.image_size, config.ar.block_size) == (image_size, TOKENS[image_size])


PUBLISHED = [f"imagenet-{size}-{tokenizer}" for size, tokenizer in GRID] + ["t2i-gpic-gear-1b"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_compile_and_log_every_update(name: str) -> None:
    config = load_config(name)
    assert config.engine.compile
    assert {stage.log_every for stage in config.stages.values()} == {1}
    assert not load_config("demo").engine.compile


@pytest.mark.parametrize("name", PUBLISHED)
def test_monitors_draw_as_the_published_ones(name: str) -> None:
    watch = load_config(name).watch
    assert (watch.grids_every, watch.grid_cfg_scale, TOP_K, watch.at_step_1) == (20_000, 4.0, 2_000, True)
    assert (watch.features, watch.batch_size) == ("inception", 32)
    if name.startswith("t2i"):
        assert (watch.coco_images, watch.coco_seed, watch.coco_image_size) == (1_000, 42, 256)
        assert (watch.coco_cfg_scale, watch.coco_top_k) == (1.75, 2_000)
    else:
        assert (watch.generation_images, watch.reconstruction_images) == (50_000, 50_000)


def test_without_alignment_no_teacher_is_needed(tmp_path: Path) -> None:
    def teachers(*overrides: str, preset: str = "imagenet-b-vq") -> list[str]:
        needs = required_files(load_config(preset, overrides))
        return [need.purpose for need in needs if need.purpose.startswith("teacher")]

    assert teachers() == ["teacher dinov2-vit-b"]
    assert teachers(preset="imagenet-b-vq-no-repa") == []
    assert teachers("gear.align_coeff=0") == ["teacher dinov2-vit-b"], "stage e2e aligns the tokenizer"
    assert teachers("gear.align_coeff=0", preset="t2i-gpic-gear-1b") == []
    nowhere = load_config("imagenet-b-vq", ["gear.align_coeff=0", f"teacher.weights={tmp_path}/nowhere"])
    assert frozen_digests("ar", nowhere) == {}


@pytest.mark.parametrize(("recipe", "steps"), AR_STEPS.items())
def test_a_recipe_says_how_long_stage_ar_trains(recipe: str, steps: int) -> None:
    assert load_config(f"imagenet-l-ibq-{recipe}").stages["ar"].steps == steps


def test_the_recipe_without_external_files_needs_none() -> None:
    assert required_files(load_config("imagenet-b-vq-lite0")) == []
    assert required_files(load_config("demo")) == []


def test_the_monitors_network_is_needed_when_they_are_on() -> None:
    assert "Frechet distances while training" not in {
        need.purpose for need in required_files(load_config("imagenet-b-vq"))
    }
    on = required_files(load_config("imagenet-b-vq", ["watch.generation_every=50000"]))
    (source,) = (need.source for need in on if need.purpose == "Frechet distances while training")
    assert source.endswith("/pt_inception-2015-12-05-6726825d.pth")


def test_the_files_that_a_recipe_needs_are_listed_with_their_purpose() -> None:
    needs = {need.purpose: need.source for need in required_files(load_config("imagenet-xl-ibq-siglip2-512px"))}
    assert needs["teacher siglip2-vit-b"] == "hf://google/siglip2-base-patch16-512/model.safetensors"
    assert needs["start of stage tokenizer without --init"].endswith("/IBQ_pretrain_16384.ckpt")
    assert needs["start of stage e2e without --init"] == "hf://BinLin203/Warmup-IBQ/ibq-with-gan.pt"
    assert needs["LPIPS loss (vgg_weights)"].endswith("/vgg16-397923af.pth")
    assert "LPIPS loss (lpips_weights)" not in needs, "the package lpips carries them"


def test_the_text_encoder_is_among_the_external_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder(*overrides: str, preset: str = "t2i-gpic-gear-1b") -> list[str]:
        return [need.state for need in required_files(load_config(preset, overrides)) if need.purpose == "text encoder"]

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    command = "harness assets pull qwen3-1.7b (or: hf download Qwen/Qwen3-1.7B)"
    assert encoder() == [f"text encoder: missing; fetch it with: {command}"]
    snapshot = tmp_path / "models--Qwen--Qwen3-1.7B" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    assert encoder() == ["text encoder: found"]
    assert encoder("text.source=/data/qwen") == ["text encoder: missing: /data/qwen does not exist"]
    assert encoder(preset="digits-t2i") == []


def test_a_text_to_image_run_identifies_its_encoder_by_content(tmp_path: Path) -> None:
    (tmp_path / "teacher").write_text("x")
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "model.safetensors").write_text("1")
    places = [f"teacher.weights={tmp_path}/teacher", f"text.source={tmp_path}/qwen"]
    before = frozen_digests("t2i", load_config("t2i-gpic-gear-1b", places))
    assert before.keys() == {"teacher dinov2-vit-b", "text encoder"}
    (tmp_path / "qwen" / "model.safetensors").write_text("2")
    assert frozen_digests("t2i", load_config("t2i-gpic-gear-1b", places)) != before


def test_a_stage_identifies_its_frozen_weights_by_content(tmp_path: Path) -> None:
    for name in ("vgg", "heads", "teacher"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_text("x")
    lpips = [f"perceptual.vgg_weights={tmp_path}/vgg", f"perceptual.lpips_weights={tmp_path}/heads"]

    def digests(phase: str, teacher: str) -> dict[str, str]:
        return frozen_digests(phase, load_config("imagenet-b-vq", [*lpips, f"teacher.weights={tmp_path / teacher}"]))

    assert digests("ar", "teacher") == {"teacher dinov2-vit-b": sha256_file(tmp_path / "teacher")}
    assert digests("tokenizer", "nowhere").keys() == {"LPIPS loss (vgg_weights)", "LPIPS loss (lpips_weights)"}
    assert digests("e2e", "teacher") == {**digests("tokenizer", "nowhere"), **digests("ar", "teacher")}
    before = digests("ar", "folder")
    (tmp_path / "folder" / ".cache").mkdir()
    for name in ("README.md", ".cache/download.json"):
        (tmp_path / "folder" / name).write_text("of today")
    assert digests("ar", "folder") == before
    (tmp_path / "folder" / "model.safetensors").write_text("y")
    assert digests("ar", "folder") != before
    with pytest.raises(MissingAsset, match=r"teacher dinov2-vit-b needs .*nowhere, which does not exist"):
        digests("e2e", "nowhere")


def test_the_heads_of_lpips_are_identified_by_content_wherever_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = installed_lpips(tmp_path, monkeypatch)
    heads.write_text("heads")
    (tmp_path / "vgg").write_text("vgg")
    vgg = f"perceptual.vgg_weights={tmp_path}/vgg"
    packaged = frozen_digests("tokenizer", load_config("imagenet-b-vq", [vgg]))
    assert packaged["LPIPS loss (lpips_weights)"] == sha256_file(heads)
    named = [vgg, f"perceptual.lpips_weights={heads}"]
    assert frozen_digests("tokenizer", load_config("imagenet-b-vq", named)) == packaged


def test_the_defaults_may_be_left_out_of_a_name() -> None:
    def without_name(preset: str) -> dict[str, object]:
        return {**load_config(preset).to_dict(), "name": ""}

    assert without_name("imagenet-xl-vq") == without_name("imagenet-xl-vq-dinov2-256px-ar-init")
    assert load_config("imagenet-xl-vq").name == "imagenet-xl-vq"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", r"names are imagenet-SIZE-TOKENIZER\[-TEACHER\].*SIZE is missing \(b, l, xl\)"),
        ("imagenet-xl", r"TOKENIZER is missing \(vq, lfq, ibq\)"),
        ("imagenet-xxl-vq", "did you mean xl"),
        ("imagenet-xl-vq-dino2", "did you mean dinov2"),
        ("imagenet-xl-vq-256px-dinov2", "'dinov2' is in the wrong place"),
        ("imagent-xl-vq", "did you mean imagenet-xl-vq"),
        ("something", "there are: demo, "),
    ],
)
def test_a_wrong_name_is_one_sentence_with_the_way_names_are_made(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_preset(name)


def test_a_file_may_extend_a_combination(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: imagenet-l-lfq-dinov3\nname: mine\ngear: {temperature: 0.05}\n")
    mine = load_config(path)
    assert (mine.name, mine.gear.temperature, mine.gear.tap_layer, mine.teacher.name) == (
        "mine",
        0.05,
        8,
        "dinov3-vit-b",
    )


def test_a_users_file_with_axes_is_a_preset_when_every_axis_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {image_size: 64}\naxes:\n  depth: {default: shallow, values: {shallow: {ar: {n_layer: 2}}, deep: {}}}\n"
    )
    assert read_preset(path) == {"name": "mine", "data": {"image_size": 64}, "ar": {"n_layer": 2}}


def test_the_list_shows_every_preset_and_every_choice() -> None:
    shown = CliRunner().invoke(main, ["presets"], catch_exceptions=False).stdout
    for name, about in single_presets().items():
        assert about, name
        assert f"{name:16}{about}" in shown
    for family in families():
        assert family.pattern in shown
        for axis in family.axes:
            for value, choice in axis.values.items():
                assert f"{value:15}{choice['about']}" in shown


def test_one_preset_is_shown_whole_and_can_be_read_back(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["presets", "imagenet-b-vq"], catch_exceptions=False).stdout
    assert "# start of stage e2e without --init: " in shown
    (tmp_path / "copy.yaml").write_text(shown)
    assert load_config(tmp_path / "copy.yaml") == load_config("imagenet-b-vq")


@pytest.mark.parametrize("name", preset_names())
def test_the_names_that_are_listed_are_presets(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)
