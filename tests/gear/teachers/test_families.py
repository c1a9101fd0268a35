"""The published vision transformers: what they are, where they may be used, and that they run."""

from __future__ import annotations

import pytest
import torch

from gear.teachers import FAMILIES, TeacherConfig, build_teachers, teacher_names
from gear.teachers.vit import ViTFamily, ViTTeacher
from harness.contract.errors import MissingAsset, UserError
from tests.gear.teachers.small import shallow

WIDTHS = {
    "dinov2-vit-s": (384, 12),
    "dinov2-vit-b": (768, 12),
    "dinov2-vit-l": (1024, 24),
    "dinov2-vit-g": (1536, 40),
    "dinov2_reg-vit-s": (384, 12),
    "dinov2_reg-vit-b": (768, 12),
    "dinov2_reg-vit-l": (1024, 24),
    "dinov2_reg-vit-g": (1536, 40),
    "dinov3-vit-s": (384, 12),
    "dinov3-vit-splus": (384, 12),
    "dinov3-vit-b": (768, 12),
    "dinov3-vit-l": (1024, 24),
    "dinov3-vit-lplus": (1024, 24),
    "dinov3-vit-hplus": (1280, 32),
    "dinov3-vit-7b": (4096, 40),
    "jepa21-vit-b": (768, 12),
    "jepa21-vit-l": (1024, 24),
    "jepa21-vit-g": (1408, 40),
    "jepa21-vit-G": (1664, 48),
    "siglip2-vit-b": (768, 12),
    "siglip2-vit-l": (1024, 24),
    "siglip2-vit-so400m": (1152, 27),
    "clip-vit-L": (1024, 24),
}
"""Width and blocks of every published size."""

PARAMETERS = {
    "dinov2-vit-b": 85_724_928,
    "dinov2-vit-g": 1_134_769_664,
    "dinov2_reg-vit-l": 303_230_976,
    "dinov3-vit-b": 85_659_648,
    "dinov3-vit-hplus": 840_591_360,
    "jepa21-vit-b": 85_647_360,
    "siglip2-vit-b": 85_843_200,
    "clip-vit-L": 303_177_728,
}
"""Of the network that a teacher needs at 256 px: no heads, no parts for videos. Counted by hand."""

VITS = [name for name, family in FAMILIES.items() if isinstance(family, ViTFamily)]

SUPPORTED = {
    256: {"dinov2", "dinov2_reg", "dinov3", "jepa21", "siglip2", "clip"},
    384: {"dinov2", "dinov2_reg"},
    512: {"dinov2", "dinov2_reg", "dinov3", "jepa21", "siglip2"},
    1024: {"dinov2", "dinov2_reg", "dinov3", "jepa21"},
}


def test_every_published_size_is_there() -> None:
    assert teacher_names() == ["lite0", *WIDTHS]


@pytest.mark.parametrize(("name", "shape"), WIDTHS.items())
def test_an_architecture_has_its_published_width_and_depth(name: str, shape: tuple[int, int]) -> None:
    with torch.device("meta"):
        (teacher,) = build_teachers(TeacherConfig(name=name, weights="random"), image_size=256, grid=16)
    assert isinstance(teacher, ViTTeacher)
    assert (teacher.dim, len(teacher.network.blocks), teacher.grid) == (*shape, 16)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.network.training
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in teacher.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("image_size", SUPPORTED)
@pytest.mark.parametrize("family", VITS)
def test_a_family_is_used_at_its_sizes_and_refused_at_others(family: str, image_size: int) -> None:
    size = "L" if family == "clip" else "b"
    config = TeacherConfig(name=f"{family}-vit-{size}", weights="random")
    with torch.device("meta"):
        if family in SUPPORTED[image_size]:
            (teacher,) = build_teachers(config, image_size=image_size, grid=image_size // 16)
            assert teacher.grid == image_size // 16
        else:
            with pytest.raises(UserError, match=rf"{family} is used at .* px, not at {image_size}; at {image_size} px"):
                build_teachers(config, image_size=image_size, grid=image_size // 16)


@pytest.mark.parametrize("family", VITS)
def test_a_teacher_gives_a_patch_per_token_in_raster_order(family: str) -> None:
    """A change in one corner of the image changes the features of that corner most."""
    teacher = shallow(family, depth=1)
    image = torch.full((1, 3, 256, 256), 128, dtype=torch.uint8)
    marked = image.clone()
    marked[..., :16, 240:] = 255
    plain, changed = teacher.features(image), teacher.features(marked)
    assert plain.shape == (1, 256, teacher.dim)
    assert plain.dtype == torch.float32
    assert int((changed - plain).norm(dim=-1)[0].argmax()) == 15, "row 0, last column"


@pytest.mark.parametrize("family", [name for name in VITS if name != "clip"])
def test_a_layer_is_read_before_the_norm_and_the_last_one_becomes_the_output_by_it(family: str) -> None:
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, last = shallow(family, depth=2, layer=1), shallow(family, depth=2, layer=2)
    output = shallow(family, depth=2)
    torch.testing.assert_close(output.network.norm(last.features(image)), output.features(image))
    assert not torch.allclose(first.features(image), last.features(image))


@pytest.mark.parametrize(
    ("config", "grid", "message"),
    [
        (TeacherConfig(name="dino"), 16, "no teacher named 'dino'"),
        (TeacherConfig(name="dinov2-vitb"), 16, "did you mean dinov2-vit-b"),
        (
            TeacherConfig(name="dinov2-vit-h"),
            16,
            "no teacher named 'dinov2-vit-h'; did .*dinov2-vit-s, dinov2-vit-b",
        ),
        (TeacherConfig(name="dinov2-vit-b", weights="random"), 32, r"16\^2 patches in 256 px .* 32\^2 tokens"),
        (TeacherConfig(name="dinov2-vit-b", weights="random", layer=13), 16, "blocks 1 to 12"),
        (TeacherConfig(name="dinov2-vit-b", weights="random", layer=0), 16, "blocks 1 to 12"),
        (TeacherConfig(name="clip-vit-L", weights="random", layer=24), 16, r"set teacher\.layer=-1"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_in_one_sentence(config: TeacherConfig, grid: int, message: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=message):
        build_teachers(config, image_size=256, grid=grid)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("dinov2-vit-b", r"curl .* https://dl\.fbaipublicfiles\.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain\.pth"),
        ("dinov2_reg-vit-l", r"/dinov2_vitl14/dinov2_vitl14_reg4_pretrain\.pth"),
        ("dinov3-vit-b", r"hf download facebook/dinov3-vitb16-pretrain-lvd1689m model\.safetensors"),
        ("jepa21-vit-b", r"vjepa2_1_vitb_dist_vitG_384\.pt"),
        ("siglip2-vit-b", r"hf download google/siglip2-base-patch16-256 model\.safetensors"),
        ("clip-vit-L", r"hf download openai/clip-vit-large-patch14 model\.safetensors"),
        ("dinov3-vit-7b", r"no single public file; set teacher\.weights"),
    ],
)
def test_missing_weights_are_one_sentence_with_the_command_that_fetches_them(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.device("meta"), pytest.raises(MissingAsset, match=command) as error:
        build_teachers(TeacherConfig(name=name), image_size=256, grid=16)
    assert "teacher.weights" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2-vit-b", "dinov3-vit-b", "jepa21-vit-b", "siglip2-vit-b", "clip-vit-L"])
def test_the_teachers_of_the_published_recipes_run_at_their_true_size(name: str) -> None:
    (teacher,) = build_teachers(TeacherConfig(name=name, weights="random"), image_size=256, grid=16)
    image = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = teacher.features(image)
    assert patches.shape == (2, 256, teacher.dim)
    assert bool(patches.isfinite().all())
