"""The command line: what it prints, where it ends, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from harness.catalog.assets import Asset
from harness.catalog.benchmarks import Catalog
from harness.catalog.fetch import Fetcher
from harness.catalog.plugins import COMMANDS, summary
from harness.catalog.project import find_project
from harness.cli import main
from harness.cli.base import yaml_value
from harness.contract.errors import EXIT_INTERRUPTED, SCORER_STATUSES, MissingAsset, UserError, describe_statuses
from harness.store.run_record import find_run


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "160"})


@pytest.fixture
def samples(toy) -> Path:
    path = toy.root / "mine.npz"
    np.savez(path, arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    return path


@pytest.fixture
def scored(toy, samples) -> Result:
    """`harness score` of all-grey samples: the brightness is 7."""
    return harness("score", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}", "--name", "grey")


@pytest.mark.parametrize("command", ["", *COMMANDS.names()])
def test_help_fits_a_screen_and_shows_an_example(command: str):
    result = harness(*command.split(), "--help")
    lines = result.output.splitlines()
    assert result.exit_code == 0 and len(lines) <= 50 and max(map(len, lines)) <= 110
    if command in ("", "plan", "run", "score", "check", "assets"):
        assert f"harness {command}".strip() in result.output


def test_help_documents_the_exit_status():
    said = " ".join(harness("--help").output.split())
    assert describe_statuses(*SCORER_STATUSES, EXIT_INTERRUPTED) in said
    assert "2 wrong usage or input" in said and "130 interrupted" in said


def test_the_list_of_commands_is_made_without_importing_them():
    code = (
        "import sys; from harness.cli import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("numpy", "scipy", "harness.cli.run", "gear.bench.demo") if f"'{name}'" in printed]
    for name in COMMANDS.names():
        help_of_its_own = str(COMMANDS.load(name).help).replace("\b", "").strip().partition("\n\n")[0]
        assert summary(COMMANDS.place(name)) == " ".join(help_of_its_own.split())


def test_commands_of_installed_packages_are_listed():
    assert "demo" in COMMANDS.names() and "demo" in harness("--help").output


def test_scoring_prints_the_number_and_writes_record_and_report(toy, scored):
    assert scored.exit_code == 0, scored.output
    assert "Brightness" in scored.output and "7.00" in scored.output
    run_dir = toy.runs_dir / "grey"
    assert "Brightness" in (run_dir / "report.html").read_text()
    assert json.loads((run_dir / "record.json").read_text())["command"][0] == "harness"


def test_a_run_can_be_listed_shown_and_reported(toy, scored):
    listed, shown = harness("ls"), harness("show", "gre")
    assert "toy" in listed.output and "grey" in listed.output and "Toy: how bright" in listed.output
    assert "score-toy" in shown.output and "7.00" in shown.output and shown.exit_code == 0
    assert json.loads(harness("show", "grey", "--json").output)["status"] == "finished"
    (toy.runs_dir / "grey" / "report.html").unlink()
    assert harness("report", "grey").output.strip().endswith("report.html")
    assert (toy.runs_dir / "grey" / "report.html").is_file()


def test_two_runs_can_be_compared(toy, samples, scored):
    np.savez(samples, arr_0=np.full((5, 8, 8, 3), 9, np.uint8))
    harness("score", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}", "--name", "bright")
    result = harness("compare", "grey", "bright")
    assert result.exit_code == 0 and "7.00" in result.output and "9.00" in result.output and "bright" in result.output


def test_a_gold_check_passes_and_fails_as_it_should(toy):
    passed = harness("check", "toy")
    assert passed.exit_code == 0 and "pass" in passed.output, passed.output
    toy.edit("benchmarks/toy/brightness.py", "mean()", "mean() + 1")
    failed = harness("check", "toy")
    assert failed.exit_code == 1 and "FAIL" in failed.output and "do not trust" in failed.output


def test_a_plan_and_a_dry_run_write_nothing(toy, samples):
    words = ("--benchmark", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}")
    planned, dry = harness("plan", *words), harness("run", *words, "--dry-run")
    assert planned.exit_code == 0 and "score-toy" in planned.output and "after samples" in planned.output
    assert dry.exit_code == 0 and dry.output.count("\nenv -i") == 2
    as_json = json.loads(harness("plan", *words, "--json").output)
    assert [step["name"] for step in as_json["steps"]] == ["samples", "score-toy"]
    assert not toy.runs_dir.exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "--benchmark", "toy"], 2, "No generator is named"),
        (["run", "--benchmark", "toy", "--samples", "x.npz"], 2, "x.npz: does not exist"),
        (["run", "--benchmark", "tyo", "--generator", "true"], 2, "did you mean toy"),
        (["run", "--generator", "true"], 2, "Nothing to run"),
        (["run", "--benchmark", "toy", "--generator", "true", "--set", "scale=2"], 2, "--set BENCHMARK.scale=2"),
        (["run", "--benchmark", "toy", "--generator", "true", "--set", "toy.scale"], 2, "not NAME=VALUE"),
        (["run", "--benchmark", "toy", "--generator", "true", "--protocol", "cgf=2"], 2, "there are: image_size"),
        (["run", "--benchmark", "toy", "--generator", "true", "--protocol", "top_p=7"], 2, "top_p"),
        (["run", "--benchmark", "toy", "--generator", "true", "--protocol", "cfg_scale=abc"], 2, "cfg_scale is 'abc'"),
        (["run", "--benchmark", "toy", "--generator", "true", "--protocol", "top_k=1.5"], 2, "top_k is 1.5"),
        (
            ["run", "--benchmark", "toy", "--generator", "true", "--protocol", "top_k=["],
            2,
            "--protocol top_k=[: the value",
        ),
        (
            ["run", "--benchmark", "toy", "--tokenizer", "my_model.py", "--protocol", "image_size=abc"],
            2,
            "image_size is 'abc'",
        ),
        (["run", "--benchmark", "toy", "--samples", ".", "--limit", "10"], 2, "leave out --limit"),
        (
            ["run", "--benchmark", "toy", "--generator", "true", "--set", "toy.scale=["],
            2,
            "--set toy.scale=[: the value",
        ),
        (
            ["run", "--benchmark", "toy", "--generator", "true", "--set", "toy.scale=2024-13-45"],
            2,
            "--set toy.scale=2024-13-45: scale must be a number",
        ),
        (["score", "toy", "--samples", ".", "--set", "scale=["], 2, "--set toy.scale=[: the value"),
        (["score", "toy", "--samples", ".", "--set", "toy.scael=2"], 2, "--set toy.scael=2: toy has no option 'scael'"),
        (["run", "--benchmark", "toy", "--generator", "true"], 4, "toy needs 'toy-reference'"),
        (["run", "--benchmark", "toy", "--generator", "true", "--asset", "toy-reference=no"], 4, "does not exist"),
        (["plan", "--benchmark", "toy", "--generator", "true"], 4, "harness assets import toy-reference FILE"),
        (["plan", "--benchmark", "toy", "--generator", "true"], 4, "sample-toy"),
        (["plan", "--benchmark", "toy", "--generator", "true", "--json", "--dry-run"], 2, "give one of them"),
        (["plan", "--benchmark", "toy", "--generator", "true", "--draw", "dtype=bf16"], 2, "belongs to --ckpt"),
        (["run", "--benchmark", "toy", "--generator", "true", "--image", "tyo=x"], 2, "--image tyo=...: no step"),
        (["show", "nothing"], 2, "harness ls"),
        (["assets", "pull"], 2, "Say what to fetch"),
        (["assets", "path", "toy-reference"], 4, "toy-reference"),
        (["check", "toyy"], 2, "did you mean toy"),
    ],
)
def test_a_mistake_is_one_sentence_with_a_fix_and_a_documented_status(toy, words: list[str], code: int, sentence: str):
    result = harness(*words)
    assert result.exit_code == code and sentence in result.output, result.output
    assert "Traceback" not in result.output


def test_text_is_taken_as_it_is_typed():
    assert yaml_value("--set", "3") == 3 and yaml_value("--set", "'3'") == "3" and yaml_value("--set", "true") is True
    for text in ("Rate #1 now", 'PROMPT: "{prompt}"\n- one\n- two # three', "plain words"):
        assert yaml_value("--set", text) == text


def test_what_cannot_be_fetched_does_not_stop_the_others(toy, monkeypatch):
    asked: list[str] = []

    def pull(self: Fetcher, asset: Asset, *_: object, **__: object) -> Path:
        asked.append(asset.name)
        raise MissingAsset(f"'{asset.name}' has no address")

    monkeypatch.setattr(Fetcher, "pull", pull)
    monkeypatch.setattr(Fetcher, "size", lambda self, asset: None)
    result = harness("assets", "pull", "toy-reference", "--all")
    assert result.exit_code == 4 and set(asked) == set(Catalog.load(find_project()).assets)
    assert all(f"'{name}' has no address" in result.output for name in asked)


def test_environments_can_be_prepared(toy):
    result = harness("prepare", "toy")
    assert result.exit_code == 0 and result.output.startswith("toy: "), result.output


def test_an_option_is_taken_with_and_without_the_name_of_the_only_benchmark(toy, samples):
    words = ("score", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}")
    for option in ("scale=3", "toy.scale=3"):
        result = harness(*words, "--set", option)
        assert result.exit_code == 0 and "21.00" in result.output, result.output


def test_a_number_that_was_edited_is_not_believed_and_is_computed_again(toy, samples, scored):
    (score,) = toy.runs_dir.glob("grey/steps/*-score-toy/output/score.json")
    score.write_text(score.read_text().replace("7.0", "9.0"))
    for command in ("show", "compare"):
        result = harness(command, "grey")
        assert result.exit_code == 2 and "9.00" not in result.output
        assert "score.json: does not match its digest in record.json" in result.output
        assert "run the same command again" in result.output
    listed = harness("ls")
    assert listed.exit_code == 0 and "9.00" not in listed.output
    words = ("--samples", samples, "--asset", f"toy-reference={toy.reference}", "--name", "grey")
    assert "7.00" in harness("score", "toy", *words).output and "7.00" in harness("show", "grey").output


def test_one_run_that_cannot_be_read_does_not_hide_the_others(toy, scored):
    for name, text in {"torn": '{"format": ', "other": '{"format": "song"}'}.items():
        (toy.runs_dir / name).mkdir()
        (toy.runs_dir / name / "record.json").write_text(text)
    result = harness("ls")
    assert result.exit_code == 0 and "grey" in result.output
    assert "torn/record.json" in result.output and "other/record.json" in result.output
    assert find_run("gre", toy.runs_dir).name == "grey"


def test_a_status_of_another_version_is_shown_as_it_is(toy, scored):
    path = toy.runs_dir / "grey" / "record.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "paused"'))
    for command in (["ls"], ["show", "grey"]):
        result = harness(*command)
        assert result.exit_code == 0 and "paused" in result.output, result.output


def test_runs_of_the_same_name_are_compared_under_the_names_that_tell_them_apart(toy, samples, scored):
    words = ("score", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}", "--name", "grey")
    np.savez(samples, arr_0=np.full((5, 8, 8, 3), 9, np.uint8))
    harness(*words, "--runs", "other")
    result = harness("compare", "runs/grey", "other/grey")
    assert result.exit_code == 0
    for part in ("runs/grey", "other/grey", "7.00", "9.00"):
        assert part in result.output


def test_an_asset_is_replaced_only_on_request(toy):
    harness("assets", "import", toy.reference)
    toy.reference.write_text("2.0")
    refused = harness("assets", "import", toy.reference)
    assert refused.exit_code == 4 and "add --replace" in refused.output
    assert harness("assets", "import", "--replace", toy.reference).exit_code == 0


def test_samples_that_are_none_end_with_their_own_status(toy):
    (toy.root / "bad.npz").write_bytes(b"not an archive")
    result = harness("score", "toy", "--samples", "bad.npz", "--asset", f"toy-reference={toy.reference}")
    assert result.exit_code == 3 and "log.txt" in result.output


def test_an_asset_is_imported_by_its_file_name_and_verified(toy):
    assert harness("assets", "import", toy.reference).exit_code == 0
    assert harness("assets", "path", "toy-reference").output.strip() == str(
        toy.home / "assets" / "toy-reference" / "reference.txt"
    )
    assert harness("assets", "verify").exit_code == 0
    (toy.home / "assets" / "toy-reference" / "reference.txt").write_text("changed")
    wrong = harness("assets", "verify")
    assert wrong.exit_code == 4 and "WRONG" in wrong.output


def test_doctor_tells_what_is_here_and_which_assets_are_missing(toy):
    result = harness("doctor")
    assert result.exit_code == 0, result.output
    for part in ("python", "uv", "GB free", "toy: 1 missing", "harness assets import toy-reference FILE"):
        assert part in result.output


def test_doctor_fails_when_the_chosen_runtime_cannot_be_used(toy, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    result = harness("doctor", "--runtime", "docker")
    assert result.exit_code == 6 and "start the Docker engine" in result.output


def test_the_runtime_of_the_environment_is_the_default_and_a_wrong_one_is_refused(toy, monkeypatch):
    monkeypatch.setenv("HARNESS_RUNTIME", "rocket")
    result = harness("doctor")
    assert result.exit_code == 2 and "rocket" in result.output


def test_a_run_is_found_by_the_beginning_of_its_name_when_that_is_clear(toy, scored):
    assert find_run("g", toy.runs_dir) == toy.runs_dir / "grey"
    assert find_run(str(toy.runs_dir / "grey"), Path("elsewhere")) == toy.runs_dir / "grey"
    (toy.runs_dir / "grown").mkdir()
    record = json.loads((toy.runs_dir / "grey" / "record.json").read_text())
    (toy.runs_dir / "grown" / "record.json").write_text(json.dumps({**record, "run": "grown"}))
    with pytest.raises(UserError, match="begins 2 runs"):
        find_run("gr", toy.runs_dir)


def test_a_run_cannot_be_named_out_of_its_folder(toy, samples):
    for name in ("../x", "a/b", ".store"):
        result = harness(
            "score", "toy", "--samples", samples, "--asset", f"toy-reference={toy.reference}", "--name", name
        )
        assert result.exit_code == 2 and "--name" in result.output


def test_doctor_does_not_ask_for_a_judges_address_where_the_harness_serves_the_judge(toy, monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)  # the shipped ones
    for name in ("HARNESS_JUDGE_URL", "HARNESS_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    asked = harness("doctor", "--benchmark", "wise").output
    assert "wise needs HARNESS_JUDGE_URL" in asked and "--judge DIR" in asked
    monkeypatch.setenv("HARNESS_JUDGE_MODEL", "/models/judge")
    assert "HARNESS_JUDGE_URL" not in harness("doctor", "--benchmark", "wise").output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--against", "first", "--set", "scale=2"), "--full and --set belong to the check of a scorer"),
        (("--against", "first", "--full"), "--full and --set belong to the check of a scorer"),
        (("toy", "--tolerance", "file.yaml"), "give --against RECORD"),
    ],
)
def test_an_option_of_the_other_kind_of_check_is_refused(toy, words, sentence: str):
    done = harness("check", *words)
    assert done.exit_code == 2 and sentence in done.output, done.output
