"""The scorer against servers over real HTTP: good ones, bad ones, and one that is killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from benchmarks.wise import replay
from benchmarks.wise.connection import Connection
from benchmarks.wise.interface import Options
from benchmarks.wise.judge import Judge, NoAnswer
from benchmarks.wise.replay import Line, serve
from benchmarks.wise.scorer import score
from benchmarks.wise.wording import wording_of
from harness.contract import (
    EnvironmentFailure,
    Prompt,
    SampleSet,
    SampleSetWriter,
    SamplingProtocol,
    ScoreRecord,
    UserError,
    prompt_requests,
    read_items,
)
from harness.report.compare import ComparisonResult, metric_rows
from harness.scoring.scorer import Assets, run_scorer

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "benchmarks/wise/check/assets"
MODEL = "Qwen3.5-35B-A3B"
PNG = b"not looked at"
HEAD = b"HTTP/1.1 200 OK\r\n"
ONE_PER_CATEGORY = (1, 401, 521, 641, 761, 881)


def samples_of(folder: Path, cases: dict[int, str], benchmark: str = "wise") -> SampleSet:
    """A sample set whose prompts name the script of `replay` that answers them."""
    prompts = [
        Prompt(item=str(i), text=f"case {case}", meta={"prompt_id": i, "Explanation": "x", "Subcategory": "y"})
        for i, case in cases.items()
    ]
    requests = prompt_requests(benchmark, 1, SamplingProtocol(image_size=8), prompts=prompts, layout="{item}.png")
    writer = SampleSetWriter(folder, requests, {"name": "black"}, form="png")
    for shard in writer.missing():
        writer.write(shard, np.zeros((len(shard.requests), 8, 8, 3), np.uint8))
    return writer.finish()


def run(samples: SampleSet, out: Path, **options: object) -> int:
    (out.parent / "options.json").write_text(json.dumps(options))
    words = ["--samples", samples.folder, "--assets", ASSETS, "--out", out]
    return run_scorer(score, [*map(str, words), "--options", str(out.parent / "options.json")])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {"RETRIES": "1", "BACKOFF_S": "0.01", "TIMEOUT_S": "5", "CONCURRENCY": "3"}.items():
        monkeypatch.setenv(f"HARNESS_JUDGE_{name}", value)
    return monkeypatch


def ask(script: replay.Script, case: str, **connection: float) -> str:
    with serve(script, MODEL) as url:
        settings = {"retries": 1, "backoff_s": 0.001, "timeout_s": 5.0, **connection}
        return Judge(Connection(url=url, **settings), Options()).ask(PNG, "system", f"case {case}").text


@pytest.mark.parametrize(
    ("line", "reason_class"),
    [
        (Line(status=500), "server-error"),
        (Line(status=429), "server-error"),
        (Line(status=400, body="too long"), "refused"),
        (Line(body='{"choices": ['), "malformed"),
        (Line(body='{"choices": []}'), "malformed"),
        (Line(body="[" * 100_000), "malformed"),
        (Line(hang_up=True), "connection"),
        (Line(break_off=True), "connection"),
        (Line(status=500, break_off=True), "server-error"),
        (Line(status=400, break_off=True), "refused"),
        (Line(body='{"choices": [3]}'), "malformed"),
        (Line(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 400 + b"\r\n"), "connection"),
        (Line(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"), "connection"),
        (Line(raw=HEAD + b"Content-Length: -1\r\n\r\n{}"), "connection"),
        (Line(raw=HEAD + b"Content-Encoding: gzip\r\n\r\nnot gzip"), "connection"),
        (Line(raw=b"no HTTP\r\n\r\n"), "connection"),
        (Line(raw=HEAD, then=b"X-More: " + b"x" * 1000 + b"\r\n"), "connection"),
        (Line(raw=HEAD + b"\r\n", then=b" " * 65536), "malformed"),
        (Line(raw=b"HTTP/1.1 400 Bad\r\n\r\n", then=b"no " * 1000), "refused"),
        (Line(raw=b"HTTP/1.1 429 Later\r\nRetry-After: \xc2\xb2\r\nContent-Length: 0\r\n\r\n"), "server-error"),
        (Line(raw=b"HTTP/1.1 429 Later\r\nRetry-After: -1e999\r\nContent-Length: 0\r\n\r\n"), "server-error"),
    ],
)
def test_a_server_that_keeps_failing_costs_one_image_its_answer(line: Line, reason_class: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        ask({"bad": [line]}, "bad")
    assert caught.value.reason_class == reason_class


def test_a_server_that_takes_too_long_is_not_asked_again_at_once() -> None:
    script = {"slow": [Line(delay_s=1.0, text="Score: 1")]}
    started = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        ask(script, "slow", timeout_s=0.2, retries=9)
    assert caught.value.reason_class == "timeout" and time.monotonic() - started < 3


@pytest.mark.parametrize(
    "line",
    [
        Line(raw=HEAD + b"\r\n", then=b" ", every_s=0.02),
        Line(raw=HEAD, then=b"X-More: x\r\n", every_s=0.02),
        Line(raw=b"", then=b"H", every_s=0.02),
        Line(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n", then=b"1\r\n \r\n", every_s=0.02),
        Line(raw=b"", then=b"HTTP/1.1 102 Wait\r\n\r\n", every_s=0.02),
    ],
)
def test_a_server_that_drips_has_one_deadline_for_the_whole_answer(line: Line) -> None:
    with pytest.raises(NoAnswer, match=r"no whole answer within 0\.3 s"):
        ask({"drip": [line]}, "drip", timeout_s=0.3)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_answer_is_an_answer_or_no_answer(seed: int) -> None:
    chance = random.Random(seed)
    body = b'{"choices": [{"message": {"content": "Score: 1"}, "finish_reason": "stop"}]}'
    data = bytearray(HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with suppress(NoAnswer, EnvironmentFailure):
        assert isinstance(ask({"damaged": [Line(raw=bytes(data))]}, "damaged", retries=0), str)


def test_a_redirect_is_named_and_not_followed() -> None:
    with serve({"target": [Line(text="Score: 1")]}, MODEL) as elsewhere:
        head = f"HTTP/1.1 307 There\r\nLocation: {elsewhere}/chat/completions\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(EnvironmentFailure, match=f"sends on to {elsewhere}.*HARNESS_JUDGE_URL"):
            ask({"moved": [Line(raw=head.encode())]}, "moved")
    with pytest.raises(EnvironmentFailure, match=r"sends on to ftp://host/file"):
        ask({"moved": [Line(raw=b"HTTP/1.1 302 There\r\nLocation: ftp://host/file\r\n\r\n")]}, "moved")


@pytest.mark.parametrize("line", [Line(status=503), Line(status=429), Line(hang_up=True)])
def test_a_hitch_is_tried_again(line: Line) -> None:
    assert ask({"hitch": [line, Line(text="Score: 1")]}, "hitch") == "Score: 1"


def test_half_a_character_of_a_reply_can_be_written_down() -> None:
    line = Line(body='{"choices": [{"message": {"content": "Score: 1 \\ud83d"}}]}')
    assert ask({"half": [line]}, "half") == "Score: 1 ?"


def test_a_wrong_key_stops_everything() -> None:
    with pytest.raises(EnvironmentFailure, match="HARNESS_JUDGE_API_KEY"):
        ask({"key": [Line(status=401, body="no")]}, "key")


def test_pauses_double_and_have_an_end() -> None:
    pauses: list[float] = []
    with serve({"down": [Line(status=503)]}, MODEL) as url:
        judge = Judge(Connection(url=url, retries=9, backoff_s=1.0), Options(), sleep=pauses.append)
        with pytest.raises(NoAnswer):
            judge.ask(PNG, "system", "case down")
    assert len(pauses) == 9 and all(0.5 * 2**i <= pause <= 1.5 * 2**i for i, pause in enumerate(pauses[:6]))
    assert max(pauses) <= 90


def test_a_server_with_another_model_is_named_with_what_it_has() -> None:
    with serve({}, "llama") as url, pytest.raises(EnvironmentFailure, match=r"serves llama, not Qwen"):
        Judge(Connection(url=url), Options()).require()


def test_a_server_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(EnvironmentFailure, match="run the same command again"):
        Judge(Connection(url="http://127.0.0.1:9/v1"), Options()).require()
    with pytest.raises(UserError, match="HARNESS_JUDGE_URL"):
        Connection.from_environment({})


# --- the scorer ------------------------------------------------------------------------------------------------------


def test_unreadable_replies_are_asked_for_again_and_then_kept_unscored(patient, tmp_path: Path) -> None:
    cases = dict(zip(ONE_PER_CATEGORY, ["good"] * 4 + ["second", "never"], strict=True))
    script = {
        "good": [Line(text="Score: 1")],
        "second": [Line(text=""), Line(text="<think>Score: 1</think>Score: 0")],
        "never": [Line(text="Hm."), Line(body="{"), Line(text="Well.")],
    }
    samples = samples_of(tmp_path / "samples", {**cases, 2: "never", 882: "good"})
    with serve(script, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples, tmp_path / "out") == 5
    record = ScoreRecord.read(tmp_path / "out")
    assert {item.id: item.reason_class for item in record.unscored} == {
        "wise/881/0#0": "unreadable-reply",
        "wise/2/0#0": "unreadable-reply",
    }
    items = {row["prompt_id"]: row for row in read_items(tmp_path / "out")}
    assert items[761]["score"] == 0 and items[761]["replies"] == ["", "<think>Score: 1</think>Score: 0"]
    assert items[881]["score"] is None and items[881]["replies"]
    assert record.metric("wiscore").value == pytest.approx(0.4 + 0.12 * 4) and record.metric("wiscore").n == 6
    assert any("Incomplete: 2 of 8" in note for note in record.notes)


def test_a_server_that_is_ill_leaves_no_score_and_is_asked_again_for_what_is_missing(patient, tmp_path, capsys) -> None:
    samples = samples_of(tmp_path / "samples", dict(zip(ONE_PER_CATEGORY, ["ill", *["good"] * 5], strict=True)))
    script = {"ill": [Line(status=503)], "good": [Line(text="Score: 1")]}
    for answer, exit_code in ((Line(status=503), 6), (Line(hang_up=True), 6), (Line(text="1"), 0)):
        with serve({**script, "ill": [answer]}, MODEL) as url:
            patient.setenv("HARNESS_JUDGE_URL", url)
            assert run(samples, tmp_path / "out") == exit_code
        assert (tmp_path / "out" / "score.json").exists() == (exit_code == 0)
        script["good"] = [Line(status=400)]  # whoever is asked again now would be refused
    said = capsys.readouterr().err
    assert "1 images were not answered (1 server-error; " in said and "(1 connection; " in said
    assert "run the same command again" in said
    assert ScoreRecord.read(tmp_path / "out").metric("wiscore").value == pytest.approx(1.0)


def test_an_image_that_fails_run_after_run_holds_the_rest_up_no_longer(patient, tmp_path: Path) -> None:
    samples = samples_of(tmp_path / "samples", dict(zip(ONE_PER_CATEGORY, ["ill", *["good"] * 5], strict=True)))
    for exit_code in (6, 6, 5):
        with serve({"ill": [Line(status=503)], "good": [Line(text="Score: 1")]}, MODEL) as url:
            patient.setenv("HARNESS_JUDGE_URL", url)
            assert run(samples, tmp_path / "out") == exit_code
    assert [item.reason_class for item in ScoreRecord.read(tmp_path / "out").unscored] == ["server-error"]


def test_what_the_server_refuses_for_good_stays_unscored(patient, tmp_path: Path) -> None:
    cases = dict(zip(ONE_PER_CATEGORY, ["refused", *["good"] * 5], strict=True))
    script = {"refused": [Line(status=400)], "good": [Line(text="Score: 1")]}
    with serve(script, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", cases), tmp_path / "out") == 5
    assert [item.reason_class for item in ScoreRecord.read(tmp_path / "out").unscored] == ["refused"]


def test_a_category_without_a_score_leaves_no_overall_score(patient, tmp_path: Path) -> None:
    with serve({"good": [Line(text="1")]}, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", {1: "good"}), tmp_path / "out") == 0
    record = ScoreRecord.read(tmp_path / "out")
    assert record.metric("wiscore").value is None and record.metric("category_score", "CULTURE").value == 1
    assert any("no overall score" in note for note in record.notes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (Line(text="?"), r"1 unreadable-reply.*in the reply '\?'"),
        (Line(text="**Score:** 1"), r"the reply says '\*\*Score:\*\* 1'.*has to write 'Score: 1'.*wise\.user_prompt"),
        (Line(text="Score：1"), "the reply says 'Score：1'"),
        (Line(text='{"score": 1}'), r"""the reply says '{"score": 1}'"""),
        (Line(text="Score: 0.5"), r"the reply says 'Score: 0\.5'"),
        (Line(text="<think>Score: 0 if it is", finish_reason="length"), r"ends inside its thinking.*wise\.max_tokens"),
        (Line(text="", finish_reason="length"), r"cut off before its answer.*wise\.max_tokens"),
    ],
)
def test_when_no_reply_can_be_read_there_is_no_zero_but_what_was_seen(patient, tmp_path, capsys, line, said) -> None:
    with serve({"never": [line]}, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", {1: "never"}), tmp_path / "out") == 2
    assert not (tmp_path / "out" / "score.json").exists()
    assert re.search(said, capsys.readouterr().err)


def test_rounds_differ_and_the_spread_is_reported(patient, tmp_path: Path) -> None:
    cases = {i: f"id {i}" for i in ONE_PER_CATEGORY}
    script = {name: [Line(text="Score: 1")] for name in cases.values()} | {"id 1": [Line(text="1"), Line(text="0")]}
    with serve(script, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", cases), tmp_path / "out", repeats=2) == 0
    record = ScoreRecord.read(tmp_path / "out")
    found = [record.metric(name).value for name in ("wiscore_lowest", "wiscore", "wiscore_highest")]
    assert found == pytest.approx([0.6, 0.8, 1.0])


def test_scores_of_two_wordings_are_not_compared(patient, tmp_path: Path) -> None:
    samples = samples_of(tmp_path / "samples", dict.fromkeys(ONE_PER_CATEGORY, "good"))
    records = []
    for name, options in {"published": {}, "own": {"wording": "own"}}.items():
        with serve({"good": [Line(text="1")]}, MODEL) as url:
            patient.setenv("HARNESS_JUDGE_URL", url)
            assert run(samples, tmp_path / name, **options) == 0
        records.append(ScoreRecord.read(tmp_path / name))
    verdicts = {row.verdict.result for row in metric_rows(records)}
    assert verdicts == {ComparisonResult.NOT_COMPARABLE}
    assert "wording (published and own)" in metric_rows(records)[0].verdict.reason
    assert [any("own wording" in note for note in record.notes) for record in records] == [False, True]


def test_the_older_protocol_reads_three_scores(patient, tmp_path: Path) -> None:
    cases = dict.fromkeys((1, 401, 568, 701, 801, 901), "three")
    reply = "**Consistency: 2**\nRealism: 1\nAesthetic Quality: 0"
    with serve({"three": [Line(text=reply)]}, MODEL) as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", cases, "wise_legacy"), tmp_path / "out", wording="own") == 0
    assert ScoreRecord.read(tmp_path / "out").metric("wiscore").value == pytest.approx((0.7 * 2 + 0.2) / 2)


def test_the_record_says_who_judged_and_never_the_key(patient, tmp_path: Path, capsys) -> None:
    key = "sk-secret/1"
    patient.setenv("HARNESS_JUDGE_API_KEY", key)
    cases = dict(zip(ONE_PER_CATEGORY, ["good", "echo", "unreadable", "refused", "malformed", "slashed"], strict=True))
    slashed = key.replace("/", "\\/")
    script = {
        "good": [Line(text="1")],
        "echo": [Line(text=f"Score: 1 for Bearer {key}")],
        "unreadable": [Line(text=f"I was given {key}")],
        "refused": [Line(status=400, body=f"{'x' * 295}{key}")],
        "malformed": [Line(body=f"no JSON {key}")],
        "slashed": [Line(body=f'{{"choices": [{{"message": {{"content": "Score: 0 {slashed}"}}}}]}}')],
    }
    with serve(script, MODEL, owner=f"the owner of {key}") as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", cases), tmp_path / "out", judge_revision="abc123") == 5
    record = ScoreRecord.read(tmp_path / "out")
    assert record.environment["judge"]["id"] == MODEL and record.environment["judge"]["revision"] == "abc123"
    assert record.environment["judge"]["owned_by"] == "the owner of [the key]"
    assert record.options["temperature"] == 0.0 and "judge_wording" in record.digests
    wording = wording_of("wise", Options(), Assets(ASSETS))
    template = wording.fill_in("{prompt}", "{explanation}")
    assert record.environment["judge_texts_sha256"] == {
        "system": hashlib.sha256(wording.system.encode()).hexdigest(),
        "user": hashlib.sha256(template.encode()).hexdigest(),
    }
    assert all("sk-secret" not in path.read_text() for path in (tmp_path / "out").iterdir())
    assert "sk-secret" not in repr(Connection.from_environment(os.environ))


def test_a_key_that_a_judge_repeats_is_not_printed(patient, tmp_path: Path, capsys) -> None:
    patient.setenv("HARNESS_JUDGE_API_KEY", "sk-secret")
    for body in ("wrong key: sk-secret", "x" * 295 + "sk-secret"):
        with serve({"key": [Line(status=401, body=body)]}, MODEL) as url:
            patient.setenv("HARNESS_JUDGE_URL", url)
            assert run(samples_of(tmp_path / "samples", {1: "key"}), tmp_path / "out") == 6
    with serve({}, "sk-secret") as url:
        patient.setenv("HARNESS_JUDGE_URL", url)
        assert run(samples_of(tmp_path / "samples", {1: "key"}), tmp_path / "out") == 6
    said = capsys.readouterr().err
    assert "serves [the key]" in said and "sk-s" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "ftp://host/v1"),
        ("URL", "http://[::1"),
        ("URL", "http://host:port/v1"),
        ("URL", "http://name:secret-word@host/v1"),
        ("API_KEY", "two words"),
        ("API_KEY", "sk-²"),
        ("TIMEOUT_S", "nan"),
        ("TIMEOUT_S", "0"),
        ("BACKOFF_S", "-1"),
        ("RETRIES", "²"),
        ("RETRIES", "1.5"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "1" * 400),
    ],
)
def test_a_connection_that_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    variables = {"HARNESS_JUDGE_URL": "http://host/v1", f"HARNESS_JUDGE_{name}": value}
    with pytest.raises(UserError, match=f"HARNESS_JUDGE_({name}|\\*: {name.lower()})") as caught:
        Connection.from_environment(variables)
    assert "secret-word" not in str(caught.value) and "two words" not in str(caught.value)


SERVER = """
import sys, time
from benchmarks.wise.replay import Line, serve
with serve({"slow": [Line(text="Score: 1", delay_s=0.15)]}, "Qwen3.5-35B-A3B") as url:
    print(url, flush=True)
    time.sleep(60)
"""


def start_server() -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


@pytest.mark.slow
def test_a_judge_that_is_killed_in_the_middle_costs_no_answer(patient, tmp_path: Path) -> None:
    samples = samples_of(tmp_path / "samples", dict.fromkeys(range(1, 31), "slow"))
    server, url = start_server()
    patient.setenv("HARNESS_JUDGE_URL", url)
    words = ["--samples", samples.folder, "--assets", ASSETS, "--out", tmp_path / "out"]
    argv = [sys.executable, str(ROOT / "benchmarks" / "wise" / "scorer.py"), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    scorer = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "answers.jsonl"
    while not journal.exists() or len(journal.read_text().splitlines()) < 6:
        time.sleep(0.05)
        assert scorer.poll() is None
    server.send_signal(signal.SIGKILL)
    _, said = scorer.communicate(timeout=60)
    assert scorer.returncode == 6 and "run the same command again" in said
    answered = len(journal.read_text().splitlines()) - 1
    assert 5 <= answered < 30 and not (tmp_path / "out" / "score.json").exists()

    server, url = start_server()
    environment["HARNESS_JUDGE_URL"] = url
    outcome = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    server.kill()
    assert outcome.returncode == 0, outcome.stderr
    assert len(journal.read_text().splitlines()) == 31  # nothing was asked twice
