"""Options are read by name and refused as they were typed; metrics are made from what is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from harness.contract.errors import UserError
from harness.contract.fields import Within
from harness.contract.interface import (
    Metrics,
    MetricSpec,
    NotBlank,
    ScorerOptions,
    ScreenedOptions,
    Share,
)
from harness.contract.record import Metric


@dataclass(frozen=True, kw_only=True)
class Options(ScreenedOptions):
    batch_size: Annotated[int, Within(1)] = 64
    threshold: Annotated[float, Share()] = 0.3
    measure: Literal["gfid", "rfid"] = "gfid"
    judge: Annotated[str, NotBlank()] = "somebody"
    wording: Annotated[str, NotBlank()] | None = None
    known: Mapping[str, int] = field(default_factory=dict)
    exact: bool = False

    def __post_init__(self) -> None:
        if self.wording is not None and "{prompt}" not in self.wording:
            raise ValueError("wording has no {prompt}")


def test_values_take_the_place_of_defaults_and_the_mapping_is_whole() -> None:
    options = Options.read({"batch_size": 8, "threshold": 1, "known": {"a": 1}, "wording": "a {prompt}"}, "adm")
    assert (options.batch_size, options.threshold, type(options.threshold)) == (8, 1.0, float)
    assert options.as_mapping() == {
        "duplicates": "refuse",
        "batch_size": 8,
        "threshold": 1.0,
        "measure": "gfid",
        "judge": "somebody",
        "wording": "a {prompt}",
        "known": {"a": 1},
        "exact": False,
    }
    assert Options.read(Options().as_mapping(), "adm") == Options()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": 0}, "--set adm.batch_size=0: batch_size must be a whole number of at least 1, not 0."),
        ({"batch_size": "32x"}, "--set adm.batch_size=32x: batch_size must be a whole number, not '32x'."),
        ({"batch_size": True}, "--set adm.batch_size=true: batch_size must be a whole number, not True."),
        ({"threshold": 1.5}, "--set adm.threshold=1.5: threshold must be a number from 0 to 1, not 1.5."),
        ({"threshold": float("nan")}, "--set adm.threshold=NaN: threshold must be a finite number, not nan."),
        ({"measure": "fid"}, "--set adm.measure=fid: measure is 'fid'; choose one of gfid, rfid."),
        ({"judge": " "}, "--set adm.judge= : judge must be text that is not blank, not ' '."),
        ({"judge": None}, "--set adm.judge=null: judge must be text, not None."),
        ({"wording": "none"}, "--set adm.wording=none: wording has no {prompt}."),
        ({"exact": "yes"}, "--set adm.exact=yes: exact must be true or false, not 'yes'."),
        ({"duplicates": "ignore"}, "--set adm.duplicates=ignore: duplicates is 'ignore'; choose one of refuse, allow."),
    ],
)
def test_a_wrong_value_is_refused_as_it_was_typed(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Options.read({"exact": True, **given}, "adm")
    assert str(caught.value) == sentence


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"--set demo\.size=3: demo has no option 'size'; it has: none\."):
        ScorerOptions.read({"size": 3}, "demo")
    with pytest.raises(UserError, match="adm has no option 'batchsize'; it has: duplicates, batch_size, threshold"):
        Options.read({"batchsize": 3}, "adm")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UserError) as caught:
        Options.read({"wording": "x" * 500}, "wise")
    assert len(str(caught.value)) < 120


def test_a_metric_has_the_label_unit_and_direction_of_its_declaration() -> None:
    metrics = Metrics([MetricSpec("psnr", "PSNR", higher_is_better=True, unit="dB")])
    made = metrics.make("psnr", 20.5, n=7, interval=(20.0, 21.0), category="faces")
    assert made == Metric(
        name="psnr",
        value=20.5,
        higher_is_better=True,
        n=7,
        unit="dB",
        category="faces",
        interval=(20.0, 21.0),
        label="PSNR",
    )
    with pytest.raises(KeyError):
        metrics.make("ssim", 1.0, n=7)
