from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.catalog.benchmarks import Benchmark, Catalog, ScorerSpec
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.record import Metric, ScoreRecord
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, class_requests, prompt_requests
from harness.contract.writer import SampleSetWriter
from harness.report.run import report_for_run, rows_by_class
from harness.store.run_record import RunRecord, StepResult

MakeRecord = Callable[..., ScoreRecord]
ReadPage = Callable[[str], Any]

PROTOCOL = SamplingProtocol(image_size=16)


def write_samples(folder: Path, requests: RequestSet) -> str:
    writer = SampleSetWriter(folder, requests, generator={"name": "noise"})
    for shard in writer.missing():
        writer.write(shard, np.random.default_rng(0).integers(0, 256, (len(shard), 16, 16, 3), dtype=np.uint8))
    return writer.finish().digest


def write_run(run_dir: Path, *steps: StepResult, **rest: Any) -> Path:
    RunRecord(
        **{"run": run_dir.name, "status": "finished", "plan_digest": "f" * 64, "steps": steps, **rest},
    ).write(run_dir)
    return run_dir


@pytest.fixture
def run_dir(tmp_path: Path, make_record: MakeRecord) -> Path:
    """A finished run: class-conditional samples, and their score."""
    run_dir = tmp_path / "gear-adm"
    sample = StepResult(
        name="sample-adm",
        kind="sample",
        benchmark="adm",
        status="cached",
        folder="steps/02",
        computed_s=60.0,
        key="a" * 64,
    )
    requests = class_requests("adm", 1, PROTOCOL, count=24, num_classes=3, labels="balanced")
    digest = write_samples(run_dir / "steps/02/output", requests)
    gfid = Metric(name="gfid", label="gFID", unit="points", value=3.94, higher_is_better=False, n=24)
    record = make_record(gfid, benchmark="adm", digests={"samples": digest})
    record.write(run_dir / "steps/03/output")
    score = StepResult(
        name="score-adm",
        kind="score",
        benchmark="adm",
        status="run",
        folder="steps/03",
        seconds=7.5,
        digest=sha256_file(run_dir / "steps/03/output/score.json"),
    )
    return write_run(
        run_dir, sample, score, command=("harness", "run", "--note", "two words"), generator={"name": "xl"}
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    adm = Benchmark(
        id="adm",
        version=1,
        title="ADM ImageNet",
        summary="",
        suites=(),
        condition="class",
        requests={},
        protocol=PROTOCOL,
        form="npz",
        scorer=ScorerSpec(script="scorer.py", image="adm"),
        published=({"model": "ADM-G", "source": "README", "protocol": "cfg 1.0", "metrics": {"gfid": 4.59}},),
    )
    return Catalog([adm], {})


def test_a_finished_run_has_scores_samples_time_and_provenance(run_dir: Path, read_page: ReadPage) -> None:
    path = report_for_run(run_dir)
    assert path == run_dir / "report.html"
    page = read_page(path.read_text(encoding="utf-8"))
    digest = ScoreRecord.read(run_dir / "steps/03/output").digests["samples"]
    for part in ("gear-adm", "gFID", "3.94", "Samples for adm", "1 min 00 s", "total without cached", digest, "a" * 64):
        assert part in page.text
    assert "harness run --note 'two words'" in page.text
    assert page.tags.count("img") == 1


def test_a_score_has_its_labels_and_units_and_benchmark_yaml_the_published_values(
    run_dir: Path, catalog: Catalog, read_page: ReadPage
) -> None:
    text = read_page(report_for_run(run_dir, catalog).read_text(encoding="utf-8")).text
    for part in ("ADM ImageNet", "gFID", "points", "ADM-G", "4.59", "cfg 1.0"):
        assert part in text


def test_prompts_stand_under_their_pictures(tmp_path: Path, read_page: ReadPage) -> None:
    run_dir = tmp_path / "run"
    prompts = [Prompt(item=f"{i:03d}", text=f"a <b>{i}</b> cats") for i in range(30)]
    write_samples(run_dir / "s/output", prompt_requests("geneval", 1, PROTOCOL, prompts=prompts))
    step = StepResult(name="sample-geneval", kind="sample", benchmark="geneval", status="run", folder="s", seconds=1.0)
    page = read_page(report_for_run(write_run(run_dir, step)).read_text(encoding="utf-8"))
    assert page.tags.count("img") == 12
    assert "a <b>0</b> cats" in page.text
    assert "a <b>29</b> cats" in page.text
    assert "This run has no score yet." in page.text


def test_a_failed_step_shows_the_end_of_its_log_and_how_to_go_on(tmp_path: Path, read_page: ReadPage) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "s").mkdir(parents=True)
    (run_dir / "s/log.txt").write_text("\n".join(f"line {i} <script>" for i in range(5000)))
    failed = StepResult(
        name="score-adm", kind="score", status="failed", folder="s", error="No GPU kernel.", seconds=3.0
    )
    waiting = StepResult(name="score-dpg", kind="score", status="skipped")
    write_run(run_dir, failed, waiting, status="failed", command=("harness", "run"))
    page = read_page(report_for_run(run_dir).read_text(encoding="utf-8"))
    assert "score-adm failed. No GPU kernel." in page.text
    assert "line 4999 <script>" in page.text
    assert "line 4979" not in page.text
    assert "Without a result: score-dpg. The same command continues from here: harness run" in page.text


def test_a_damaged_score_becomes_a_note_and_the_rest_is_shown(run_dir: Path, read_page: ReadPage) -> None:
    (run_dir / "steps/03/output/items.jsonl").write_text('{"changed": true}\n')
    page = read_page(report_for_run(run_dir).read_text(encoding="utf-8"))
    assert "The result of score-adm cannot be shown" in page.text
    assert page.tags.count("img") == 1


def test_an_edited_number_is_not_shown(run_dir: Path, read_page: ReadPage) -> None:
    score = run_dir / "steps/03/output/score.json"
    score.write_text(score.read_text().replace("3.94", "1.94"))
    page = read_page(report_for_run(run_dir).read_text(encoding="utf-8"))
    assert "score.json: does not match its digest in record.json" in page.text
    assert "1.94" not in page.text


def test_damaged_samples_become_a_note_and_the_scores_are_shown(run_dir: Path, read_page: ReadPage) -> None:
    npz = run_dir / "steps/02/output/samples.npz"
    content = bytearray(npz.read_bytes())
    content[len(content) // 2] ^= 255
    npz.write_bytes(content)
    page = read_page(report_for_run(run_dir).read_text(encoding="utf-8"))
    assert "Samples for adm cannot be shown" in page.text
    assert "3.94" in page.text


def test_samples_that_were_there_before_the_run_are_shown(tmp_path: Path, read_page: ReadPage) -> None:
    write_samples(tmp_path / "given", class_requests("adm", 1, PROTOCOL, count=4, num_classes=1000))
    run_dir = write_run(tmp_path / "run", generator={"kind": "samples", "path": str(tmp_path / "given")})
    page = read_page(report_for_run(run_dir).read_text(encoding="utf-8"))
    assert page.tags.count("img") == 1
    assert "Sample set of the given samples" in page.text


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"record\.json"):
        report_for_run(tmp_path)


def test_rows_are_classes_spread_over_those_with_several_samples() -> None:
    labels = np.repeat(np.arange(100), 9)
    rows = rows_by_class(labels)
    assert [name for name, _ in rows] == ["0", "11", "22", "33", "44", "55", "66", "77", "88", "99"]
    assert rows[1][1] == list(range(99, 107))
    assert rows_by_class(np.arange(50)) == []
    assert rows_by_class(None) == []


def test_listing_runs_loads_no_plotting_library_and_reports_load_no_torch() -> None:
    program = (
        "import sys, harness.report.table; assert 'matplotlib' not in sys.modules, 'matplotlib';"
        "import harness.report.run; assert not {'torch', 'gear', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
