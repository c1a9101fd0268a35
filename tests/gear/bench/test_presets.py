"""Published models by name: the files behind a name, and the same run as with the files given one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gear.assets import find_asset, listed_asset, listed_assets
from gear.bench.released import all_released, needed_assets
from gear.presets import preset_names
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli import main
from tests.gear.bench.models import config, write_encoder, write_model, write_published


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "home"


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def test_every_published_model_is_made_of_listed_assets():
    catalog = Catalog.load(find_project())
    for name, model in all_released().items():
        assert set(model.assets) in ({"ckpt", "vq-ckpt"}, {"ckpt", "vq-ckpt", "text-encoder"}, {"tokenizer"}), name
        for asset in model.assets.values():
            assert catalog.asset(asset).commercial in ("yes", "no", "ask"), asset
        assert needed_assets(name) == tuple(listed_assets()[asset] for asset in model.assets.values())


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith(("imagenet", "t2i-gpic"))])
def test_every_file_that_a_published_configuration_reads_is_listed(name: str):
    from gear.config import load_config
    from gear.required_files import required_files

    catalog = Catalog.load(find_project())
    for need in required_files(load_config(name)):
        asset = listed_asset(need.source)
        urls = {url for other in catalog.assets.values() for url in other.urls}
        assert asset is not None or need.source in urls, need.source


def test_a_listed_file_is_found_where_the_harness_keeps_it(home: Path):
    url = "https://download.pytorch.org/models/vgg16-397923af.pth"
    place = home / "assets" / "vgg16" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.touch()
    assert find_asset(url, purpose="LPIPS", setting="perceptual.vgg_weights") == place


def test_the_files_of_a_preset_are_listed_and_fetched_by_its_name(tmp_path: Path, home: Path):
    listed = harness("assets", "ls", "--preset", "gear-t2i-gpic-1b")
    assert all(name in listed.output for name in ("gear-t2i-gpic-1b", "gear-vq", "qwen3-1.7b")), listed.output
    listed = harness("assets", "ls", "--preset", "imagenet-xl-vq")
    assert all(name in listed.output for name in ("vgg16", "dinov2-vitb14", "warmup-vq")), listed.output
    mirror = tmp_path / "mirror"
    write_published(mirror / "gear-t2i-gpic-1b" / "gear-t2i-gpic-1b.pt", config("t2i"), n_head=2)
    write_model(mirror / "gear-vq" / "gear-vq.pt", config(), parts=("vq",))
    write_encoder(mirror / "qwen3-1.7b" / "Qwen3-1.7B")
    done = harness("assets", "pull", "--preset", "gear-t2i-gpic-1b", "--mirror", mirror)
    assert done.exit_code == 0, done.output
    assert (home / "assets" / "qwen3-1.7b" / "Qwen3-1.7B" / "config.json").is_file()
    assert "all 3 assets are here" in harness("assets", "pull", "--preset", "gear-t2i-gpic-1b").output


@pytest.fixture
def model(home: Path) -> dict[str, Path]:
    """The released text-to-image model in the asset store, with tiny weights."""
    store = home / "assets"
    return {
        "ckpt": write_published(store / "gear-t2i-gpic-1b" / "gear-t2i-gpic-1b.pt", config("t2i"), n_head=2),
        "vq-ckpt": write_model(store / "gear-vq" / "gear-vq.pt", config(), parts=("vq",)),
        "text-encoder": write_encoder(store / "qwen3-1.7b" / "Qwen3-1.7B"),
    }


def test_a_preset_knows_model_tokenizer_text_encoder_and_guidance(model: dict[str, Path]):
    done = harness("plan", "--json", "--suite", "t2i", "--preset", "gear-t2i-gpic-1b")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    drawn = {step["benchmark"]: step for step in plan["steps"] if step["kind"] == "sample"}
    for step in drawn.values():
        given = {name: source["asset"] for name, source in step["inputs"].items() if "asset" in source}
        assert given == {"ckpt": "gear-t2i-gpic-1b", "vq-ckpt": "gear-vq", "text-encoder": "qwen3-1.7b"}
    scales = {
        step["benchmark"]: step["inputs"]["spec.json"]["document"]["protocol"]["cfg_scale"]
        for step in plan["steps"]
        if step["kind"] == "requests"
    }
    assert scales == {"coco": 1.5, "dpg": 4.0, "geneval": 4.0, "geneval_long": 4.0, "gpic": 1.0, "wise": 4.0}


def test_a_preset_of_other_files_is_refused_before_the_first_step(model: dict[str, Path]):
    write_encoder(model["text-encoder"], width=32)
    done = harness("plan", "--suite", "t2i", "--preset", "gear-t2i-gpic-1b")
    assert done.exit_code == 2 and "features of width 32" in done.output, done.output


def test_ones_own_copies_take_the_place_of_a_presets_files(model: dict[str, Path], tmp_path: Path):
    own = write_published(tmp_path / "own.pt", config("t2i", codes=32), n_head=2)
    words = ("plan", "--suite", "t2i", "--preset", "gear-t2i-gpic-1b", "--asset", f"gear-t2i-gpic-1b={own}")
    done = harness(*words)
    assert done.exit_code == 2 and "32 codes but the tokenizer has 16" in done.output, done.output


def test_a_model_that_was_published_with_its_own_guidance_and_size_is_drawn_so():
    done = harness("plan", "--json", "--suite", "c2i", "--preset", "llamagen-xl-384")
    plan = json.loads(done.stdout)
    requests, draw = plan["steps"][0], plan["steps"][1]
    assert requests["inputs"]["spec.json"]["document"]["protocol"]["cfg_scale"] == 1.75
    assert draw["argv"][draw["argv"].index("--trained-size") + 1] == "384"
    done = harness("plan", "--json", "--suite", "c2i", "--preset", "llamagen-xl-384", "--protocol", "cfg_scale=3")
    assert json.loads(done.stdout)["steps"][0]["inputs"]["spec.json"]["document"]["protocol"]["cfg_scale"] == 3


def test_a_published_tokenizer_reconstructs():
    plan = json.loads(harness("plan", "--json", "--suite", "tokenizer", "--preset", "gear-lfq").stdout)
    assert plan["steps"][0]["inputs"]["tokenizer"] == {"asset": "gear-lfq"} and plan["name"] == "gear-lfq-tokenizer"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenet-xl-vq", "is a configuration to train with"),
        ("gear-t2i-gpic", "did you mean gear-t2i-gpic-1b"),
        ("nothing-of-this-name", "published are: gear-t2i-gpic-1b"),
    ],
)
def test_other_names_are_refused(name: str, words: str):
    done = harness("run", "--suite", "c2i", "--preset", name)
    assert done.exit_code == 2 and words in done.output, done.output


def test_missing_files_are_one_table_and_one_command():
    done = harness("run", "--suite", "c2i", "--preset", "llamagen-b-256")
    assert done.exit_code == 4
    assert "harness assets pull llamagen-b-256 llamagen-vq-16 --benchmark adm" in done.output, done.output
