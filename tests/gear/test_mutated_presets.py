"""Mutated presets, and values of --set: a configuration, or one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gear.config import RunConfig, load_config
from gear.presets import CONFIGS_DIR, preset_names, read_preset
from harness.contract.errors import UserError
from tests.mutations import ODD_VALUES, mutations

PRESETS = sorted(path.name for path in CONFIGS_DIR.glob("*.yaml"))


def loads(source: str | Path, *overrides: str) -> None:
    """It is a configuration, or refused in one line."""
    try:
        assert isinstance(load_config(source, overrides), RunConfig)
    except UserError as refused:
        assert str(refused) and "\n" not in str(refused), str(refused)  # noqa: PT017


@pytest.mark.parametrize("name", PRESETS)
def test_a_mutated_preset_is_a_configuration_or_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONFIGS_DIR, tmp_path / "configs")
    monkeypatch.setattr("gear.presets.CONFIGS_DIR", tmp_path / "configs")
    path = tmp_path / "configs" / name
    names = [preset for preset in preset_names() if preset.startswith(path.stem)][:2] or [path.stem]
    for text in mutations(path.read_text(encoding="utf-8"), seed=len(name), count=60):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for preset in (*names, path):
            loads(preset)


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: value[:20])
def test_a_value_of_set_is_taken_or_a_sentence(value: str) -> None:
    for field in (
        "tokenizer.ch",
        "tokenizer",
        "ar",
        "ar.size",
        "data",
        "stages.e2e",
        "stages",
        "text",
        "name",
        "seed.x",
    ):
        loads("demo", f"{field}={value}")


@pytest.mark.parametrize("override", ["=", "a", ".=1", "..=1", "a.=1", "data..=1", "\n=1", "stages.e2e.=3", "é=1"])
def test_an_override_without_a_name_is_a_sentence(override: str) -> None:
    loads("demo", override)


def test_a_preset_that_extends_itself_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    with pytest.raises(UserError, match=r"extends cannot be followed \(it extends itself\)"):
        read_preset(one)


@pytest.mark.parametrize("base", ["[a]", "{a: b}", "5", "/nowhere/at/all.yaml", "'a\\0.yaml'", '"\\0.yaml"', "." * 300])
def test_a_base_that_is_no_preset_is_refused(base: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {base}\n")
    with pytest.raises(UserError):
        read_preset(path)


@pytest.mark.parametrize(
    "axes", ["5", "[a]", "{size: 3}", "{size: {values: 3}}", "{size: {values: {a: 3}}}", "{size: {valuez: {}}}",
             "{1: {values: {2: {}}}}", "{size: {default: b, values: {a: {}}}}"]
)  # fmt: skip
def test_axes_that_make_no_sense_are_refused(axes: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: {{}}\naxes: {axes}\n")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        read_preset(path)
