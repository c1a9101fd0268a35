"""rFID against the training set and gFID against the validation set: refused, since nothing else would tell."""

from __future__ import annotations

import pytest

from benchmarks.adm.references import Measure, Reference, refuse_mixed_up
from harness.contract.errors import UserError


def reference(count: int, *, has_statistics: bool) -> Reference:
    return Reference(filename="reference.npz", sha256="0" * 64, count=count, has_statistics=has_statistics)


TRAIN = reference(10_000, has_statistics=True)
VALIDATION = reference(50_000, has_statistics=False)
OTHER = reference(2_000, has_statistics=False)


@pytest.mark.parametrize(
    ("measure", "archive"), [("gfid", TRAIN), ("rfid", VALIDATION), ("gfid", OTHER), ("rfid", OTHER)]
)
def test_a_measure_goes_with_its_split(measure: Measure, archive: Reference) -> None:
    refuse_mixed_up(measure, archive)


def test_rfid_against_the_training_set_is_refused() -> None:
    with pytest.raises(UserError, match="rFID compares with the validation set"):
        refuse_mixed_up("rfid", TRAIN)


@pytest.mark.parametrize("has_statistics", [False, True])
def test_gfid_against_the_validation_set_is_refused(has_statistics: bool) -> None:
    with pytest.raises(UserError, match="gFID compares with the training set"):
        refuse_mixed_up("gfid", reference(50_000, has_statistics=has_statistics))


def test_a_known_digest_says_more_than_the_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.adm.references.KNOWN_SHA256", {"0" * 64: "val"})
    assert TRAIN.split == "val"
