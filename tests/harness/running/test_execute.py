"""Cache, recompute, failure: what a second run of a plan does."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.contract.errors import MissingAsset, UserError
from harness.contract.shown import shell_line
from harness.planning.generators import existing_samples
from harness.planning.steps import HOST, FileInput, OutputOf, Plan, Resources, Step
from harness.report.run import report_for_run
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.running.preview import command_lines, preview
from harness.running.setting import Silent
from harness.store.run_record import RunRecord

ALL = ("requests-toy", "sample-toy", "score-toy")


def counts(record: RunRecord) -> tuple[int, int]:
    """(computed, from cache)."""
    words = [step.status for step in record.steps]
    return words.count("run") + words.count("resumed"), words.count("cached")


def test_a_run_ends_with_a_score_and_a_readable_folder(toy, score_of):
    record = toy.run()
    run_dir = toy.runs_dir / record.run
    assert record.status == "finished" and exit_code(record) == 0
    assert score_of(toy.runs_dir, record) == pytest.approx(127.5, abs=10)
    assert RunRecord.read(run_dir) == record
    assert sorted(path.name for path in (run_dir / "steps").iterdir()) == [
        "01-requests-toy",
        "02-sample-toy",
        "03-score-toy",
    ]
    step = run_dir / "steps" / "03-score-toy"
    assert "scored 12" in (step / "log.txt").read_text()
    assert json.loads((step / "step.json").read_text())["status"] == "run"
    assert not (step / "output").readlink().is_absolute()
    assert json.loads((run_dir / "run.json").read_text())["plan"]["steps"][1]["name"] == "sample-toy"


def test_progress_lines_stay_out_of_the_log(toy):
    record = toy.run()
    assert "event" not in (toy.runs_dir / record.run / record.step("score-toy").folder / "log.txt").read_text()


def test_the_same_plan_again_computes_nothing_and_uses_the_same_folder(toy):
    first, second = toy.run(), toy.run()
    assert counts(second) == (0, 3)
    assert first.run == second.run
    assert [step.digest for step in first.steps] == [step.digest for step in second.steps]


def change_generator(toy):
    toy.edit("my_model.py", '{"name": "toy"}', '{"name": "toy", "version": 2}')


def change_scorer(toy):
    toy.edit("benchmarks/toy/scorer.py", '"scored"', '"counted"')


def change_module_of_the_scorer(toy):
    toy.edit("benchmarks/toy/brightness.py", "mean()", "max()")


def change_reference(toy):
    toy.reference.write_text("2.0")


def change_version(toy):
    toy.edit("benchmarks/toy/benchmark.yaml", "version: 1", "version: 2")
    toy.edit("benchmarks/toy/scorer.py", "benchmark_version=1", "benchmark_version=2")


def change_option(toy):
    toy.edit("benchmarks/toy/interface.py", "scale: float = 1.0", "scale: float = 3.0")


def change_what_is_only_read_by_people(toy):
    toy.edit("benchmarks/toy/benchmark.yaml", "noon", "midnight")
    (toy.root / "benchmarks/toy/README.md").write_text("What the number means.")


def change_what_is_drawn(toy):
    toy.edit("benchmarks/toy/benchmark.yaml", "count: 12", "count: 10")


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        (change_what_is_drawn, ALL),
        (change_version, ALL),
        (change_generator, ("sample-toy",)),  # it draws the same pixels, so the score stands
        (change_scorer, ("score-toy",)),
        (change_module_of_the_scorer, ("score-toy",)),
        (change_reference, ("score-toy",)),
        (change_option, ("score-toy",)),
        (change_what_is_only_read_by_people, ()),
    ],
)
def test_a_changed_input_computes_again_what_depends_on_it_and_nothing_else(
    toy, statuses, change: Callable[[Any], None], recomputed: tuple[str, ...]
):
    toy.run()
    change(toy)
    again = statuses(toy.run())
    assert tuple(name for name, status in again.items() if status == "run") == recomputed


def test_a_limit_draws_the_first_images_with_the_same_seeds(toy):
    whole, part = toy.run(), toy.run(limit=4)
    read = lambda record: np.load(  # noqa: E731
        toy.runs_dir / record.run / record.step("sample-toy").folder / "output" / "samples.npz"
    )["arr_0"]
    assert np.array_equal(read(whole)[:4], read(part))


def test_force_computes_again_and_the_record_says_so(toy):
    toy.run()
    forced = toy.run(force=True)
    assert counts(forced) == (3, 0)
    assert forced.forced and all(step.forced for step in forced.steps)


def test_an_output_that_was_cut_short_in_the_store_is_not_believed(toy, statuses):
    record = toy.run()
    samples = (toy.runs_dir / record.run / record.step("sample-toy").folder / "output" / "samples.npz").resolve()
    with samples.open("r+b") as handle:
        handle.truncate(100)
    assert statuses(toy.run())["sample-toy"] == "run"
    assert toy.run().status == "finished"


def two_steps(then: str = "pass") -> Plan:
    """Features, and a score of them."""
    first = Step(name="features", kind="features", argv=("{python}", "-c", "open('{out}/f', 'w').write('0.877')"))
    reads = f"import time; from pathlib import Path; print(Path('{{in}}/features/one/f').read_text()); {then}"
    argv = ("{python}", "-c", f"{reads}; open('{{out}}/s', 'w')")
    score = Step(name="score", kind="x", argv=argv, inputs={"features/one": OutputOf("features")})
    return Plan(name="two", steps=(first, score))


def test_features_that_were_changed_at_equal_size_are_computed_again_and_kept(toy, statuses):
    said: list[str] = []

    class Listening(Silent):
        def say(self, step, text):
            said.append(text)

    record, run_dir = run_plan(two_steps(), toy.setting())
    features = (run_dir / record.step("features").folder / "output" / "f").resolve()
    assert features.stat().st_nlink == 1  # its time stamps are its own: no step that reads it moves them
    features.write_text("0.815")
    record, run_dir = run_plan(two_steps("print(2)"), toy.setting(), reporter=Listening())
    assert statuses(record) == {"features": "run", "score": "run"}
    assert "0.877" in (run_dir / record.step("score").folder / "log.txt").read_text()
    (kept,) = toy.setting().store.root.glob("changed/*/output/f")
    assert kept.read_text() == "0.815" and str(kept.parents[1]) in said[0]


def test_an_input_that_is_changed_while_the_run_uses_it_is_refused(toy):
    plan = two_steps()
    between = Step(
        name="between",
        kind="x",
        argv=(
            "{python}",
            "-c",
            f"from pathlib import Path; [p.write_text('0.815') for p in Path({str(toy.runs_dir)!r})"
            ".glob('.store/features/*/output/f')]",
        ),
        after=("features",),
    )
    score = dataclasses.replace(plan.step("score"), inputs={**plan.step("score").inputs, "b": OutputOf("between")})
    record, _ = run_plan(Plan(name="p", steps=(plan.step("features"), between, score)), toy.setting())
    assert "was changed while this run used it" in record.step("score").error


def test_samples_that_exist_are_scored_and_shared_by_content(toy, statuses):
    path = toy.root / "mine.npz"
    np.savez(path, arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    assert toy.run(generator=existing_samples(path)).status == "finished"
    shutil.copy(path, toy.root / "copy.npz")
    again = toy.run(generator=existing_samples(toy.root / "copy.npz"))
    assert statuses(again) == {"samples": "cached", "score-toy": "cached"}


def test_a_finished_sample_set_is_scored_where_it_lies(toy, statuses):
    first = toy.run()
    folder = toy.runs_dir / first.run / first.step("sample-toy").folder / "output"
    again = toy.run(generator=existing_samples(folder))
    assert statuses(again) == {"score-toy": "cached"}


def test_a_failing_step_shows_its_log_and_keeps_back_what_needs_it(toy, statuses):
    record = toy.run("--fail", 7)
    assert statuses(record) == {"requests-toy": "run", "sample-toy": "failed", "score-toy": "skipped"}
    error = record.step("sample-toy").error
    assert "I was told to fail" in error and "exit code 7" in error and "log.txt" in error
    assert exit_code(record) == 1 and record.status == "failed"


@pytest.mark.parametrize("code", [2, 3, 4, 6])
def test_a_documented_exit_code_of_a_step_becomes_that_of_the_run(toy, code: int):
    assert exit_code(toy.run("--fail", code)) == code


def test_a_step_that_scores_partly_is_kept_and_reported(toy):
    options = {"toy": {"refuse": 2}}
    record = toy.run(options=options)
    assert record.status == "partly" and exit_code(record) == 5
    again = toy.run(options=options)
    assert again.step("score-toy").status == "cached" and exit_code(again) == 5


def test_samples_for_other_requests_are_refused_and_not_found_again(toy):
    toy.edit("my_model.py", "RequestSet.read(arguments.requests)", "RequestSet.read(arguments.requests).limit(3)")
    record = toy.run()
    assert record.step("sample-toy").status == "failed" and exit_code(record) == 3
    assert "other requests" in record.step("sample-toy").error
    toy.edit("my_model.py", ".limit(3)", "")
    assert toy.run().status == "finished"


def test_a_missing_asset_is_found_before_anything_runs(toy):
    toy.reference.unlink()
    with pytest.raises(MissingAsset, match="reference"):
        toy.run()
    assert not toy.runs_dir.exists()


def test_a_missing_asset_of_the_store_names_the_commands_that_help(toy):
    setting = toy.setting()
    setting.assets.overrides.clear()
    with pytest.raises(MissingAsset, match="harness assets import toy-reference FILE"):
        preview(toy.plan(), setting)


def test_a_missing_environment_variable_is_found_before_anything_runs_unless_the_score_is_there(toy, monkeypatch):
    monkeypatch.delenv("TOY_JUDGE", raising=False)
    *drawing, score = toy.plan().steps
    plan = dataclasses.replace(
        toy.plan(), steps=(*drawing, dataclasses.replace(score, variables={"TOY_JUDGE": "the judge's address."}))
    )
    with pytest.raises(UserError, match="toy needs TOY_JUDGE in the environment: the judge's address"):
        run_plan(plan, toy.setting())
    assert not toy.runs_dir.exists()
    monkeypatch.setenv("TOY_JUDGE", "http://here")
    assert run_plan(plan, toy.setting())[0].status == "finished"
    monkeypatch.delenv("TOY_JUDGE")
    assert run_plan(plan, toy.setting())[0].status == "finished"


def test_a_preview_tells_what_would_happen_and_writes_nothing(toy):
    states = lambda: [row.state for row in preview(toy.plan(), toy.setting())]  # noqa: E731
    assert states() == ["run", "waits", "waits"]
    assert not toy.runs_dir.exists()
    toy.run()
    assert states() == ["cached", "cached", "cached"]
    change_reference(toy)
    assert states() == ["cached", "cached", "run"]


def test_a_preview_tells_that_interrupted_work_goes_on(toy):
    plan = toy.plan()
    toy.run("--limit-does-not-exist")  # usage error: leaves an empty output folder only
    toy.run()
    key = preview(plan, toy.setting())[1].key
    store = toy.setting().store
    shutil.rmtree(store.root / "sample")
    (store.root / "work" / f"sample-{key[:32]}" / "output" / "work").mkdir(parents=True)
    assert [row.state for row in preview(plan, toy.setting())] == ["cached", "resume", "waits"]


def test_command_lines_are_one_per_step_and_need_no_finished_step(toy):
    lines = {step.name: line for step, line in command_lines(toy.plan(), toy.setting())}
    assert list(lines) == list(ALL)
    assert lines["score-toy"][:2] == ["env", "-i"]
    assert not toy.runs_dir.exists()


def test_a_named_run_folder_keeps_the_record_of_another_plan(toy):
    setting = toy.setting()
    first, run_dir = run_plan(toy.plan(), setting, run_id="mine")
    second, same_dir = run_plan(toy.plan(limit=4), setting, run_id="mine")
    assert run_dir == same_dir and RunRecord.read(run_dir) == second
    kept = list((run_dir / "history").glob("record-*.json"))
    assert [json.loads(path.read_text())["plan_digest"] for path in kept] == [first.plan_digest]


def test_steps_of_ones_own_are_cached_like_any_other(toy, statuses):
    """What a demo does: train, train on from that, both as plain steps."""
    data = toy.root / "data.txt"
    data.write_text("3")
    script = toy.root / "train.py"
    script.write_text(
        "import sys; from pathlib import Path; start, out = Path(sys.argv[1]), Path(sys.argv[2]);"
        "(out / 'model.txt').write_text(str(int(start.read_text()) + 1)); (out / 'log.txt').write_text('x')"
    )

    def train(name: str, start: Any) -> Step:
        return Step(
            name=name,
            kind="train",
            environment=HOST,
            argv=("{python}", str(script), "{in}/start.txt", "{out}"),
            inputs={"start.txt": start},
            produces=("model.txt",),
            resources=Resources(cpus=1),
        )

    plan = Plan(name="demo", steps=(train("one", FileInput(data)), train("two", OutputOf("one", "model.txt"))))
    record, run_dir = run_plan(plan, toy.setting())
    assert (run_dir / "steps" / "02-two" / "output" / "model.txt").read_text() == "5"
    record, _ = run_plan(plan, toy.setting())
    assert statuses(record) == {"one": "cached", "two": "cached"}


def test_a_step_that_does_not_write_what_it_promised_fails(toy):
    step = Step(name="lazy", kind="train", argv=("{python}", "-c", "pass"), produces=("model.pt",))
    record, _ = run_plan(Plan(name="demo", steps=(step,)), toy.setting())
    assert "did not write model.pt" in record.step("lazy").error


def test_a_step_that_takes_too_long_is_ended(toy):
    nap = ("{python}", "-c", "import time; time.sleep(60)")
    step = Step(name="slow", kind="train", argv=nap, resources=Resources(timeout_s=0.5))
    record, _ = run_plan(Plan(name="demo", steps=(step,)), toy.setting())
    assert "took longer than 0 s" in record.step("slow").error or "took longer" in record.step("slow").error
    assert exit_code(record) == 6


def test_steps_that_fail_leave_others_alone(toy, statuses):
    bad = Step(name="bad", kind="x", argv=("{python}", "-c", "raise SystemExit(9)"))
    good = Step(name="good", kind="x", argv=("{python}", "-c", "print(1)"))
    after = Step(name="after", kind="x", argv=("{python}", "-c", "print(2)"), inputs={"bad": OutputOf("bad")})
    record, _ = run_plan(Plan(name="mixed", steps=(bad, after, good)), toy.setting())
    assert statuses(record) == {"bad": "failed", "after": "skipped", "good": "run"}


def work_on(checks: str, reference: str = "pass") -> Plan:
    """A plan with a step that checks samples, and one beside it that works on a reference and reads none of them."""
    python = ("{python}", "-c")
    samples = Step(name="samples", kind="x", argv=(*python, checks))
    return Plan(
        name="p", steps=(samples, Step(name="reference", kind="x", argv=(*python, reference), after=("samples",)))
    )


def test_bad_samples_are_refused_before_the_work_on_the_reference_which_good_ones_then_share(toy, statuses):
    setting = toy.setting()
    refused, _ = run_plan(work_on("raise SystemExit(3)"), setting)
    assert statuses(refused) == {"samples": "failed", "reference": "skipped"} and exit_code(refused) == 3
    assert refused.step("reference").error == "waits for samples, which failed"
    assert statuses(run_plan(work_on("print('good')"), setting)[0]) == {"samples": "run", "reference": "run"}
    others = work_on("print('others')")
    assert [row.state for row in preview(others, setting)] == ["run", "cached"]
    assert statuses(run_plan(others, setting)[0]) == {"samples": "run", "reference": "cached"}


def test_the_first_line_of_progress_says_that_the_checks_are_passed(toy, statuses):
    """The two steps meet: the samples' ends only when the reference's has begun."""
    begun = toy.root / "begun"
    checks = f"""
import time
from pathlib import Path
from harness.contract.progress import Progress
Progress(9, "images")
ends = time.monotonic() + 30
while not Path({str(begun)!r}).exists():
    assert time.monotonic() < ends
    time.sleep(0.05)
"""
    plan = work_on(checks, f"from pathlib import Path; Path({str(begun)!r}).touch()")
    assert statuses(run_plan(plan, toy.setting())[0]) == {"samples": "run", "reference": "run"}


def test_a_step_sees_no_credentials_of_the_shell(toy, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush")
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    step = Step(name="show", kind="x", argv=("{python}", "-c", show))
    record, run_dir = run_plan(Plan(name="env", steps=(step,)), toy.setting())
    log = (run_dir / record.step("show").folder / "log.txt").read_text()
    assert "hush" not in log and '"HOME"' in log and str(Path.home()) + '"' not in log.split('"HOME": ')[1][:40]


JUDGE_KEY, PROXY = "sk-very-secret", "http://me:pr0xy-pass@proxy:3128"


@pytest.fixture
def secrets(monkeypatch):
    """Secrets that a step with a network is given, or that a user types."""
    monkeypatch.setenv("HARNESS_JUDGE_API_KEY", JUDGE_KEY)
    monkeypatch.setenv("HARNESS_JUDGE_URL", "http://judge:8000/v1")
    monkeypatch.setenv("https_proxy", PROXY)
    return (JUDGE_KEY, "pr0xy-pass")


def asks_the_judge(code: str) -> Plan:
    """A step that is given the judge's key, in its environment and in its command line."""
    argv = ("{python}", "-c", f"import os, sys; key = os.environ['HARNESS_JUDGE_API_KEY']; {code}", "--key", JUDGE_KEY)
    step = Step(name="judged", kind="x", argv=argv, resources=Resources(network=True))
    return Plan(name="p", steps=(step,), generator={"command": f"draw --key {JUDGE_KEY}"}, options={"key": JUDGE_KEY})


ECHO = "print('401', key, os.environ['https_proxy'])"
PROGRESS = (
    """print('{"event": "progress", "what": "' + key + '", "done": 1, "total": 2, "elapsed_s": 0, "eta_s": 1}')"""
)


@pytest.mark.parametrize("end", ["pass", "sys.exit(6)"])
def test_no_secret_is_in_anything_that_a_run_keeps_or_says(toy, secrets, end):
    said: list[str] = []

    class Listening(Silent):
        def progress(self, step, line):
            said.append(line.what)

        def step_ended(self, step, result):
            said.append(result.error)

    command = ["harness", "run", "--generator", f"draw --key {JUDGE_KEY}"]
    plan = asks_the_judge(f"{ECHO}; {PROGRESS}; {end}")
    record, run_dir = run_plan(plan, toy.setting(), reporter=Listening(), command=command)
    report_for_run(run_dir)
    files = [path for path in toy.runs_dir.rglob("*") if path.is_file()]
    kept = "\n".join([*(path.read_text() for path in files), *said])
    assert "[secret]" in kept and "http://judge:8000/v1" in kept and len(files) > 5
    assert [secret for secret in secrets if secret in kept] == []
    log = (run_dir / record.step("judged").folder / "log.txt").resolve()
    assert log.stat().st_mode & 0o777 == 0o600
    assert 'HARNESS_JUDGE_API_KEY="$HARNESS_JUDGE_API_KEY"' in log.read_text()


def test_no_secret_is_in_a_printed_command_line_and_the_shell_still_gives_it(toy, secrets):
    ((_, line),) = command_lines(asks_the_judge("pass"), toy.setting())
    shown = shell_line(line)
    assert [secret for secret in secrets if secret in shown] == []
    assert 'https_proxy="$https_proxy"' in shown and "HARNESS_JUDGE_URL=http://judge:8000/v1" in shown


def test_a_plan_with_a_step_before_what_it_needs_is_refused():
    step = Step(name="a", kind="x", argv=(sys.executable,), inputs={"b": OutputOf("b")})
    with pytest.raises(UserError, match="not an earlier step"):
        Plan(name="p", steps=(step,))


@pytest.mark.parametrize("name", ["theirs.npz", "folder/1.png"])
def test_a_refusal_names_the_file_that_the_user_gave(toy, name: str):
    path = toy.root / "given" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    given = path if path.suffix == ".npz" else path.parent
    record = toy.run(generator=existing_samples(given))
    error = record.step("samples").error
    assert record.status == "failed" and str(path) in error
    assert "/in/" not in error.partition("Whole log")[0] and ".store" not in error.partition("Whole log")[0]


def test_samples_in_a_folder_whose_name_is_not_unicode_are_scored(toy, score_of):
    folder = toy.root / "caf\udce9"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (number, number, number)).save(folder / f"{number:02d}.png")
    record = toy.run(generator=existing_samples(folder))
    assert record.status == "finished" and RunRecord.read(toy.runs_dir / record.run).status == "finished"
    assert score_of(toy.runs_dir, record) == pytest.approx(5.5)
    assert counts(toy.run(generator=existing_samples(folder))) == (0, 2)


def test_linked_and_copied_samples_are_the_same_input_with_the_same_score(toy, score_of):
    for number in range(12):
        path = toy.root / "elsewhere" / f"{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, number, number)).save(path)
    linked = toy.root / "linked" / "set"
    linked.mkdir(parents=True)
    for name in "01":
        (linked / name).symlink_to(toy.root / "elsewhere" / name)
    shutil.copytree(linked, toy.root / "copied" / "set")
    first = toy.run(generator=existing_samples(linked))
    second = toy.run(generator=existing_samples(toy.root / "copied" / "set"))
    assert counts(second) == (0, 2)
    assert score_of(toy.runs_dir, first) == score_of(toy.runs_dir, second) == pytest.approx(5.5)
