"""Every number of a configuration has a range: what lies outside is one sentence, and what lies inside trains."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from gear.ar.config import ARConfig, TextARConfig
from gear.config import RunConfig, load_config
from gear.text.base import TextConfig
from gear.tokenizers import FAMILIES
from gear.tokenizers.base import TokenizerConfig
from gear.training.loop import fit
from harness.contract.errors import UserError
from harness.contract.fields import build, field_types
from tests.gear import tiny
from tests.gear.test_cli import gear

NOT_FINITE = (math.nan, math.inf, -math.inf)
AT_THE_EDGE = (-1, 0)


def numeric_fields(kind: Any) -> Iterator[tuple[str, ...]]:
    """Where the numbers of a configuration are, in every dataclass that its types lead to."""
    for name, inner in field_types(kind).items():
        for part in alternatives(inner):
            if part in (int, float):
                yield (name,)
            elif dataclasses.is_dataclass(part) and part is not TokenizerConfig:
                yield from ((name, *rest) for rest in numeric_fields(part))


def alternatives(kind: Any) -> Iterator[Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from alternatives(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from alternatives(argument)
    elif origin is dict:
        yield from alternatives(arguments[1])
    elif origin is tuple:
        yield from alternatives(arguments[0])
    else:
        yield kind


def plain(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


WHOLE = plain(tiny.config())
WHOLE["tokenizer"]["family"] = "vq"
SECTIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "text": (TextConfig, plain(TextConfig())),
    "ar": (ARConfig, plain(load_config("demo").ar)),
    "text ar": (TextARConfig, plain(load_config("digits-t2i").ar)),
    **{name: (family.config, plain(family.config())) for name, family in FAMILIES.items()},
}


def put(values: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of `values` with one of them replaced; in a list, all; in `stages`, that of every stage."""
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    if path[0] == "stages":
        changed["stages"] = {name: put(stage, path[1:], value) for name, stage in changed["stages"].items()}
    elif len(path) > 1:
        changed[path[0]] = put(changed[path[0]], path[1:], value)
    else:
        before = changed.get(path[0])
        changed[path[0]] = [value] * len(before) if isinstance(before, list) else value
    return changed


RUN_FIELDS = sorted({path for path in numeric_fields(RunConfig) if path[0] != "text"})
SECTION_FIELDS = [(section, path) for section in SECTIONS for path in numeric_fields(SECTIONS[section][0])]


def test_the_fields_are_found() -> None:
    assert len(RUN_FIELDS) > 60
    assert {("seed",), ("data", "num_workers"), ("stages", "ar", "beta1"), ("ar", "n_kv_head")} <= set(RUN_FIELDS)
    assert ("ibq", ("attn_resolutions",)) in SECTION_FIELDS and ("text", ("dim",)) in SECTION_FIELDS


@pytest.mark.parametrize("path", RUN_FIELDS, ids=".".join)
def test_a_number_that_is_not_finite_is_refused_by_the_name_of_its_field(path: tuple[str, ...]) -> None:
    for value in NOT_FINITE:
        if path[-1] == "max_grad_norm" and value == math.inf:
            assert RunConfig.from_dict(put(WHOLE, path, value)).stages["ar"].max_grad_norm == 0
            continue
        with pytest.raises(UserError, match=rf"\b{path[-1]}\b.*") as refused:
            RunConfig.from_dict(put(WHOLE, path, value))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("section", "path"), SECTION_FIELDS, ids=str)
def test_the_numbers_of_a_section_are_refused_or_make_sense(section: str, path: tuple[str, ...]) -> None:
    kind, values = SECTIONS[section]
    for value in NOT_FINITE:
        with pytest.raises(UserError, match=path[-1]):
            build(kind, put(values, path, value), "the configuration")
    for value in AT_THE_EDGE:
        for typed in (value, float(value)):
            try:
                build(kind, put(values, path, typed), "the configuration")
            except UserError as refused:
                assert "\n" not in str(refused)  # noqa: PT017


@pytest.mark.parametrize("value", AT_THE_EDGE)
@pytest.mark.parametrize("path", RUN_FIELDS, ids=".".join)
def test_a_number_at_the_edge_is_refused_or_trains(
    path: tuple[str, ...], value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    short = put(put(WHOLE, ("stages", "steps"), 1), ("watch", "grids_every"), 0)
    try:
        config = RunConfig.from_dict(put(short, path, value))
    except UserError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
        return
    trained = fit(tiny.stage("e2e", config), tiny.Noise(), tmp_path_factory.mktemp("run"), {})
    weights = torch.load(trained, weights_only=True)
    assert all(tensor.isfinite().all() for name in ("vq", "ar", "vq_ema", "ema") for tensor in weights[name].values())


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("discriminator.n_layers=4", "too many for images of 32 px"),
        ("loss.perceptual_weight=1", "perceptual.name is none; also set loss.perceptual_weight=0"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused_before_anything_is_written(
    setting: str, problem: str, tmp_path: Any
) -> None:
    out = tmp_path / "out"
    code, _, error = gear("train", "tokenizer", "--preset", "demo", "--out", out, "--set", setting)
    assert (code, out.exists()) == (2, False), error
    assert problem in error


@pytest.mark.parametrize("value", ["-1", ".nan", "abc", "-.inf"])
def test_a_refused_number_leaves_no_folder_and_no_traceback(value: str, tmp_path: Any) -> None:
    for field in ("stages.tokenizer.max_grad_norm", "data.num_workers", "seed", "discriminator.ndf"):
        out = tmp_path / "out"
        code, _, error = gear("train", "tokenizer", "--preset", "demo", "--out", out, "--set", f"{field}={value}")
        assert (code, out.exists()) == (2, False), error
        assert field in error
