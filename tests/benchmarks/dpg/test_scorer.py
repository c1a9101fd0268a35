"""The scorer around the model: what is asked about, what is counted, and what the record says. mPLUG says yes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from harness.contract import (
    Prompt,
    SampleSet,
    SampleSetWriter,
    SamplingProtocol,
    ScoreRecord,
    prompt_requests,
    read_items,
)
from harness.scoring.scorer import run_scorer


class AlwaysYes:
    def __init__(self, *given: object) -> None: ...

    def answer(self, image_u8: np.ndarray, questions: list[str]) -> list[str]:
        return ["yes"] * len(questions)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """The first row, which the original skips, is all there is about the prompt "alone"."""
    from benchmarks.dpg import mplug, scorer  # PyTorch

    for name, filename in {**mplug.FILES, mplug.WEIGHTS: "weights.pth"}.items():
        (tmp_path / "assets" / name).mkdir(parents=True)
        (tmp_path / "assets" / name / filename).write_text("x")
    (tmp_path / "assets" / scorer.QUESTIONS).mkdir()
    with (tmp_path / "assets" / scorer.QUESTIONS / "dpg_bench.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["item_id", "proposition_id", "dependency", "tuple", "question_natural_language"])
        table.writerows([[key, 1, 0, "global (x)", f"Is {key} there?"] for key in ("alone", "other")])
    return tmp_path / "assets"


def samples_of(folder: Path, repeats: int) -> SampleSet:
    prompts = [Prompt(item=key, text=key) for key in ("alone", "other")]
    requests = prompt_requests("dpg", 1, SamplingProtocol(image_size=8), prompts=prompts, repeats=repeats)
    writer = SampleSetWriter(folder, requests, {"name": "black"}, form="png")
    for shard in writer.missing():
        writer.write(shard, np.zeros((len(shard.requests), 8, 8, 3), np.uint8))
    return writer.finish()


def test_what_does_not_count_is_named(tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.dpg import scorer

    monkeypatch.setattr(scorer, "Answerer", AlwaysYes)
    monkeypatch.setattr(scorer, "available_devices", lambda: ["cpu"])
    samples = samples_of(tmp_path / "samples", repeats=6)
    words = ["--samples", samples.folder, "--assets", assets, "--out", tmp_path / "out"]
    assert run_scorer(scorer.score, list(map(str, words))) == 0
    record = ScoreRecord.read(tmp_path / "out")
    assert record.metric("dpg").n == 1 and record.metric("dpg_corrected").n == 2
    assert any("Left out of 'dpg'" in note and "alone" in note for note in record.notes)
    assert any("4 images beyond the first 4" in note for note in record.notes)
    assert any("from 8 images" in note for note in record.notes)
    assert [row["tile"] for row in read_items(tmp_path / "out")] == [0, 1, 2, 3] * 2
