"""rFID against the training set and gFID against the validation set: refused, since nothing else would tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.adm.evaluation import Evaluation
from benchmarks.adm.interface import Measure, Options, SamplesAre
from benchmarks.adm.references import (
    Reference,
    kind_notes,
    refuse_mixed_up,
    refuse_other_kind,
)
from benchmarks.adm.scorer import IMAGE_SIZE, REFERENCE, check_reference, notes, size_notes, stored_statistics
from harness.contract.adopt import adopted, sample_set_from_npz
from harness.contract.errors import BadSamples, MissingAsset, UserError
from harness.contract.requests import RequestSet, SamplingProtocol, class_requests
from harness.contract.samples import Kind, SampleSet
from harness.scoring.scorer import Assets

DECLARED = yaml.safe_load((Path(__file__).parents[3] / "benchmarks" / "adm" / "benchmark.yaml").read_text())
REQUESTS = class_requests("adm", 2, SamplingProtocol(image_size=8), count=3, num_classes=4)


def reference(count: int, *, has_statistics: bool, **said: Any) -> Reference:
    return Reference(name="reference.npz", sha256="0" * 64, count=count, has_statistics=has_statistics, **said)


TRAIN = reference(10_000, has_statistics=True)
VALIDATION = reference(50_000, has_statistics=False)
OTHER = reference(2_000, has_statistics=False)


def test_benchmark_yaml_has_the_published_values() -> None:
    rows = {(row["model"], row["protocol"].split("(")[-1][:5]): row["metrics"]["gfid"] for row in DECLARED["published"]}
    assert rows[("LlamaGen-B", "24x24")] == 6.09
    assert rows[("LlamaGen-3B", "24x24")] == 2.18


@pytest.mark.parametrize(
    ("measure", "archive"), [("gfid", TRAIN), ("rfid", VALIDATION), ("gfid", OTHER), ("rfid", OTHER)]
)
def test_a_measure_goes_with_its_split(measure: Measure, archive: Reference) -> None:
    refuse_mixed_up(measure, archive)


def test_rfid_against_the_training_set_is_refused() -> None:
    with pytest.raises(UserError, match="rFID compares with the validation set"):
        refuse_mixed_up("rfid", TRAIN)


@pytest.mark.parametrize("count", [49_999, 50_000])
@pytest.mark.parametrize("has_statistics", [False, True])
def test_gfid_against_the_validation_set_is_refused(count: int, has_statistics: bool) -> None:
    with pytest.raises(UserError, match=r"gFID compares with the training set.*adm\.reference_split=train\|val\|other"):
        refuse_mixed_up("gfid", reference(count, has_statistics=has_statistics))


def test_what_the_user_says_overrules_the_guess() -> None:
    refuse_mixed_up("gfid", reference(50_000, has_statistics=True, said="train"))
    refuse_mixed_up("rfid", reference(10_000, has_statistics=True, said="other"))
    with pytest.raises(UserError, match="gFID compares with the training set"):
        refuse_mixed_up("gfid", reference(10_000, has_statistics=False, said="val"))


def test_a_known_digest_says_more_than_the_contents() -> None:
    assert reference(10_000, has_statistics=True, known={"0" * 64: "val"}).split == "val"
    assert reference(10_000, has_statistics=True, known={"1" * 64: "val"}).split == "train"


def test_an_archive_that_nobody_knows_is_noted() -> None:
    assert "reference_split" in OTHER.notes[0]
    known = reference(2_000, has_statistics=False, known={"0" * 64: "other"})
    said = reference(2_000, has_statistics=False, said="other")
    assert [TRAIN.notes, known.notes, said.notes] == [[], [], []]


def archive(folder: Path, **arrays: np.ndarray) -> Assets:
    (folder / REFERENCE).mkdir(parents=True, exist_ok=True)
    np.savez(folder / REFERENCE / "reference.npz", **arrays)
    return Assets(folder)


IMAGES = np.zeros((6, 8, 8, 3), np.uint8)
STATISTICS = {"mu": np.zeros(4), "sigma": np.eye(4)}
SPATIAL = {"mu_s": np.zeros(3), "sigma_s": np.eye(3)}


@pytest.mark.parametrize(
    ("arrays", "count", "note"),
    [
        ({"arr_0": IMAGES}, 6, None),
        ({"arr_0": IMAGES, **STATISTICS, **SPATIAL}, 6, None),
        ({"arr_0": IMAGES, **STATISTICS}, 6, "there is no sFID"),
        (STATISTICS, 0, "gFID is all that is computed"),
        ({**STATISTICS, **SPATIAL}, 0, "both distances are all that is computed"),
    ],
)
def test_a_reference_may_hold_images_statistics_or_both(tmp_path: Path, arrays: dict, count: int, note: str) -> None:
    found = check_reference(archive(tmp_path, **arrays), Options(reference_split="other"))
    assert (found.count, found.image_size) == (count, (8, 8) if count else None)
    assert [note in line for line in found.notes] == [True] if note else found.notes == []
    assert [part is not None for part in stored_statistics(Assets(tmp_path))] == ["mu" in arrays, "mu_s" in arrays]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"other": IMAGES}, "has no array 'arr_0'"),
        ({"mu": np.zeros(4)}, r"reference\.npz: holds 'mu' without 'sigma'"),
        ({"arr_0": IMAGES, "sigma": np.eye(4)}, "holds 'sigma' without 'mu'"),
        ({**STATISTICS, "mu_s": np.zeros(4)}, "holds 'mu_s' without 'sigma_s'"),
    ],
)
def test_half_a_reference_is_refused(tmp_path: Path, arrays: dict, sentence: str) -> None:
    with pytest.raises(MissingAsset, match=sentence):
        check_reference(archive(tmp_path, **arrays), Options())


@pytest.mark.parametrize("mean", [np.zeros((2, 2)), np.full(4, np.nan), np.zeros(3), np.zeros(4, bool)])
def test_statistics_that_are_none_are_refused(tmp_path: Path, mean: np.ndarray) -> None:
    with pytest.raises(MissingAsset, match=r"reference\.npz: mu, sigma: "):
        stored_statistics(archive(tmp_path, **{**STATISTICS, "mu": mean}))


def test_sizes_that_move_the_distances_are_noted() -> None:
    sized = reference(6, has_statistics=False, image_size=(8, 8))
    assert size_notes(256, reference(0, has_statistics=True)) == []
    assert [note[:24] for note in size_notes(8, sized)] == ["The samples are 8 px; pu"]
    (note,) = size_notes(256, sized)
    assert "256 x 256 px and the reference's images 8 x 8 px" in note
    assert size_notes(256, reference(6, has_statistics=False, image_size=(256, 256))) == []


@pytest.mark.parametrize("count", [49_999, 50_176])
def test_another_count_than_the_protocols_is_noted(count: int) -> None:
    evaluation = Evaluation(gfid=1.0, sfid=None)
    assert f"{count:,} images; published numbers use 50,000" in notes(count, evaluation)[0]
    assert notes(50_000, evaluation) == []


def test_the_size_of_published_numbers_is_the_protocols() -> None:
    assert DECLARED["protocol"]["image_size"] == IMAGE_SIZE


def drawn(folder: Path, generator: dict | None = None, requests: RequestSet | None = None) -> SampleSet:
    images_u8 = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.savez(folder / "drawn.npz", arr_0=images_u8)
    return sample_set_from_npz(folder / "drawn.npz", folder / "samples", generator=generator, requests=requests)


@pytest.mark.parametrize(("measure", "said"), [("gfid", "auto"), ("gfid", "generated"), ("rfid", "reconstructions")])
def test_images_of_which_nothing_is_known_pass_as_what_the_user_says(
    tmp_path: Path, measure: Measure, said: SamplesAre
) -> None:
    refuse_other_kind(measure, drawn(tmp_path), said)


@pytest.mark.parametrize(("generator", "said"), [(None, "reconstructions"), ({"kind": "reconstructions"}, "auto")])
def test_gfid_of_reconstructions_is_refused(tmp_path: Path, generator: dict | None, said: SamplesAre) -> None:
    with pytest.raises(BadSamples, match="gFID is for drawn images"):
        refuse_other_kind("gfid", drawn(tmp_path, generator), said)


def test_rfid_of_images_that_were_drawn_is_refused(tmp_path: Path) -> None:
    samples = drawn(tmp_path, requests=REQUESTS)
    with pytest.raises(BadSamples, match=r"rFID is for reconstructions.*adm\.samples_are=reconstructions"):
        refuse_other_kind("rfid", samples, "auto")
    refuse_other_kind("rfid", samples, "reconstructions")


def test_a_wrong_record_is_not_mended_by_an_option_that_would_be_refused(tmp_path: Path) -> None:
    samples = drawn(tmp_path, adopted(tmp_path / "drawn.npz", "generated"))
    with pytest.raises(BadSamples, match=r"adopt the images again.*--kind reconstructions$"):
        refuse_other_kind("rfid", samples, "auto")


def test_images_of_which_nothing_is_known_are_noted(tmp_path: Path) -> None:
    assert "adm.samples_are" in kind_notes(drawn(tmp_path), "auto")[0]
    assert kind_notes(SampleSet.open(tmp_path / "samples"), "generated") == []


@pytest.mark.parametrize("known", [{"generator": {"kind": "generated"}}, {"requests": REQUESTS}])
def test_images_of_which_something_is_known_are_not_noted(tmp_path: Path, known: dict) -> None:
    assert kind_notes(drawn(tmp_path, **known), "auto") == []


def refuse_wrong(measure: Measure, samples: SampleSet, archive: Reference) -> None:
    refuse_other_kind(measure, samples, "auto")
    refuse_mixed_up(measure, archive)


@pytest.mark.parametrize(
    ("kind", "archive", "measure", "sentence"),
    [
        ("reconstructions", TRAIN, "gfid", "gFID is for drawn images"),
        ("reconstructions", TRAIN, "rfid", "rFID compares with the validation set"),
        ("generated", VALIDATION, "gfid", "gFID compares with the training set"),
        ("generated", VALIDATION, "rfid", "rFID is for reconstructions"),
    ],
)
def test_no_measure_puts_adopted_samples_against_the_wrong_split(
    tmp_path: Path, kind: Kind, archive: Reference, measure: Measure, sentence: str
) -> None:
    samples = drawn(tmp_path, adopted(tmp_path / "drawn.npz", kind))
    with pytest.raises(UserError, match=sentence):
        refuse_wrong(measure, samples, archive)


@pytest.mark.parametrize(
    ("kind", "archive", "measure"), [("reconstructions", VALIDATION, "rfid"), ("generated", TRAIN, "gfid")]
)
def test_adopted_samples_pass_against_the_right_split(
    tmp_path: Path, kind: Kind, archive: Reference, measure: Measure
) -> None:
    refuse_wrong(measure, drawn(tmp_path, adopted(tmp_path / "drawn.npz", kind)), archive)


@pytest.mark.parametrize(("measure", "kind"), [("rfid", "reconstructions"), ("gfid", "generated")])
def test_what_the_user_says_may_repeat_the_record_and_not_contradict_it(
    tmp_path: Path, measure: Measure, kind: Kind
) -> None:
    samples = drawn(tmp_path, adopted(tmp_path / "drawn.npz", kind))
    refuse_other_kind(measure, samples, kind)
    other: Kind = "generated" if kind == "reconstructions" else "reconstructions"
    with pytest.raises(
        UserError, match=rf"recorded as {kind}, which contradicts --set adm\.samples_are={other}.*--kind {other}"
    ):
        refuse_other_kind("gfid" if measure == "rfid" else "rfid", samples, other)


@pytest.mark.parametrize(
    "given", [{"reference_split": "test"}, {"samples_are": "pairs"}, {"references": {"abc": "train"}}]
)
def test_a_wrong_option_is_refused_by_name(given: dict) -> None:
    with pytest.raises(UserError, match=next(iter(given))):
        Options.read(given, "adm")
