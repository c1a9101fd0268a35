"""The page for users of the reference: it has every variable of the scripts, and every field that it names exists."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from typing import Any

from gear.config import load_config
from gear.presets import apply_override, read_preset
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/coming-from-gear.md").read_text(encoding="utf-8")
PRESETS = ("imagenet-xl-vq", "imagenet-xl-lfq", "imagenet-xl-ibq", "t2i-gpic-gear-1b")


def test_every_variable_of_the_scripts_stands_on_the_page() -> None:
    settings = runpy.run_path(str(ROOT / "scripts/settings.py"))
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", PAGE))
    known = {*settings["TRAINING"], *settings["EVALUATION"], *settings["BOTH"], *settings["EVERYWHERE"]}
    assert known <= named, known - named


def test_every_field_that_the_page_names_exists() -> None:
    fields = {name for preset in PRESETS for name in fields_of(load_config(preset).to_dict())}
    sections = "data|tokenizer|ar|text|teacher|loss|perceptual|discriminator|gear|engine|watch"
    named = set(re.findall(rf"`((?:{sections})\.[a-z0-9_]+)", PAGE)) - {"ar.size"}
    assert named and named <= fields, named - fields
    stages = set(re.findall(r"`stages\.STAGE\.([a-z_]+(?:\.[a-z_]+)?)", PAGE))
    assert stages and {f"stages.ar.{name}" for name in stages} <= fields, stages


def test_the_size_of_an_ar_model_is_set_by_its_name() -> None:
    values = read_preset("imagenet-xl-vq")
    apply_override(values, "ar.size=LlamaGen-B")
    assert values["ar"]["size"] == "LlamaGen-B"


def fields_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from fields_of(value, f"{prefix}{name}.")
