from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import UserError
from harness.store.run_record import RunRecord, StepResult


def step(**changes: Any) -> StepResult:
    return StepResult(**{"name": "score-adm", "kind": "score", "status": "run", "gpus": ("0", "1"), **changes})


def write(folder: Path, **changes: Any) -> Path:
    """The record of a run with one step, as JSON with `changes`; `...` leaves a field out."""
    RunRecord(run="grey", status="finished", plan_digest="f" * 64, command=("harness", "run"), steps=(step(),)).write(
        folder
    )
    path = folder / "record.json"
    row = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in row.items() if value is not ...}))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = RunRecord(
        run="grey", plan_digest="f" * 64, steps=(step(inputs={"a": "b"}, exit_code=5, computed_s=3), step(key=None))
    )
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    assert record.steps[0].is_partly_scored and not record.steps[1].is_partly_scored


DAMAGED = {
    "another kind of file": ({"format": "song"}, "'format' is 'song', not 'run-record'"),
    "a version from the future": ({"schema_version": 2}, "schema_version 2 is not the 1"),
    "a version that is true": ({"schema_version": True}, "schema_version True is not the 1"),
    "no steps": ({"steps": ...}, "the field 'steps' is missing"),
    "no start": ({"started": ...}, "the field 'started' is missing"),
    "a start that is a number": ({"started": 7}, "started must be text, not 7"),
    "a step without a kind": ({"steps": [{"name": "a"}]}, r"the field 'steps\.0\.kind' is missing"),
    "a step of text": ({"steps": ["a"]}, r"steps\.0 must be a section with fields, not 'a'"),
    "an unknown field": ({"stepz": []}, "has no field 'stepz'; did you mean 'steps'"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_refused_by_file_and_field(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"record\.json.*{sentence}"):
        RunRecord.read(tmp_path)


def test_a_status_that_this_version_does_not_know_is_read(tmp_path: Path) -> None:
    write(tmp_path, status="paused")
    assert RunRecord.read(tmp_path).status == "paused"


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is not a run folder"):
        RunRecord.read(tmp_path)
