"""WISE: sample set in, a judge's scores per image, categories and WiScore out. Serves `wise` and `wise_legacy`.

The judge is any OpenAI-compatible server (`connection.py` says how it is found). Every answer is stored when it arrives
(`answers.jsonl`), so a killed scorer or a judge that stops loses no answers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.wise import replay
from benchmarks.wise.connection import Connection
from benchmarks.wise.interface import Options
from benchmarks.wise.judge import NO_FAULT_OF_THE_IMAGE, Judge, NoAnswer
from benchmarks.wise.metrics import notes, write_score_lines
from benchmarks.wise.protocols import PROTOCOLS
from benchmarks.wise.recompute import metrics_from_items
from benchmarks.wise.replies import read
from benchmarks.wise.wording import Wording, wording_of
from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.images import encode_png
from harness.contract.items import ItemSource
from harness.contract.record import ScoreRecord, Unscored
from harness.contract.requests import Request, RequestSet
from harness.contract.samples import SampleSet
from harness.scoring.journal import Journal
from harness.scoring.scorer import ScoreJob, describe_environment, run_scorer

Row = dict[str, Any]
Question = tuple[int, int]
"""(number of the image, round)"""


def score(job: ScoreJob) -> ScoreRecord:
    options = Options.read(job.options, "wise")
    requests = prompts_of(job.samples)
    with reachable(options) as connection:
        return score_with(Judge(connection, options), job, requests)


@contextmanager
def reachable(options: Options) -> Iterator[Connection]:
    """The judge's server: the one in the environment; for the judge "replay", one that is started here."""
    if options.judge != replay.MODEL:
        yield Connection.from_environment(os.environ)
        return
    with replay.serve(replay.GOLD) as url:
        yield Connection(url=url, concurrency=4, timeout_s=5.0, retries=2, backoff_s=0.01)


def score_with(judge: Judge, job: ScoreJob, requests: RequestSet) -> ScoreRecord:
    """Ask the judge about everything and make the record."""
    started, options, protocol = time.monotonic(), judge.options, PROTOCOLS[requests.benchmark]
    wording = wording_of(requests.benchmark, options, job.assets)
    served = judge.require()
    settings = {"samples": job.samples.digest, "requests": requests.digest, "options": options.as_mapping()}
    journal = Journal(job.out / "answers.jsonl", {**settings, "wording": wording.digest})
    try:
        ask_all(job, requests, journal, judge, partial(judge_image, job.samples, requests, judge, wording))
    finally:
        journal.close()

    rows = [journal.rows[key_of(requests[i], r)] for r in range(options.repeats) for i in range(len(requests))]
    require_answers(rows)
    require_scores(rows, options)
    job.items.extend(rows)
    write_score_lines(job.out / "scores.jsonl", rows)
    source = ItemSource(benchmark=requests.benchmark, options=options.as_mapping(), asset=job.assets.file)
    return ScoreRecord(
        benchmark=requests.benchmark,
        benchmark_version=requests.version,
        metrics=metrics_from_items(rows, source),
        digests={"judge_wording": wording.digest},
        environment={
            **describe_environment(),
            "judge": served_as(served, options),
            "judge_texts_sha256": wording.sha256(),
        },
        timings_s={"judge": round(time.monotonic() - started, 3)},
        unscored=[unscored(row) for row in rows if row["score"] is None],
        options=options.as_mapping(),
        notes=notes(protocol, rows, options, len(requests)),
    )


def prompts_of(samples: SampleSet) -> RequestSet:
    """The requests the samples were drawn for.

    Raises:
        BadSamples: they are unknown, or of another benchmark.
    """
    requests = samples.requests
    protocol = None if requests is None else PROTOCOLS.get(requests.benchmark)
    if requests is None or protocol is None or protocol.version != requests.version:
        raise BadSamples(
            f"{samples.folder}: was not drawn for the prompts of wise or wise_legacy; draw samples for them, or score "
            "a folder made for the original: harness score wise --samples DIR --layout wise"
        )
    for request in requests:
        prompt_id = request.meta.get("prompt_id")
        if type(prompt_id) is not int or protocol.category_of(prompt_id) is None or not request.meta.get("Explanation"):
            raise BadSamples(
                f"{samples.folder}: {request.id} has no prompt_id and Explanation; make the requests again."
            )
    return requests


# --- asking ----------------------------------------------------------------------------------------------------------


def ask_all(
    job: ScoreJob, requests: RequestSet, journal: Journal, judge: Judge, ask: Callable[[Question], Row]
) -> None:
    """Ask about every image and round without a score, `concurrency` at a time; store answers when they arrive."""
    questions = [(index, number) for number in range(judge.options.repeats) for index in range(len(requests))]
    done = [q for q in questions if journal.rows.get(key_of(requests[q[0]], q[1]), {}).get("score") is not None]
    progress = job.progress(len(questions), "answers")
    progress.advance(len(done))
    finished = set(done)
    todo = [question for question in questions if question not in finished]
    for (index, number), row in in_parallel(ask, todo, judge.connection.concurrency):
        key = key_of(requests[index], number)
        if row.get("reason_class") in NO_FAULT_OF_THE_IMAGE:
            row["runs"] = journal.rows.get(key, {}).get("runs", 0) + 1
        journal.add(key, row)
        progress.advance()


def in_parallel(
    ask: Callable[[Question], Row], questions: Sequence[Question], concurrency: int
) -> Iterator[tuple[Question, Row]]:
    """(question, row) in the order of the answers, at most `concurrency` in flight; stops at the first exception."""
    rest = iter(questions)
    with ThreadPoolExecutor(concurrency) as pool:
        running: dict[Future[Row], Question] = {}
        try:
            while True:
                while len(running) < concurrency and (question := next(rest, None)) is not None:
                    running[pool.submit(ask, question)] = question
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


RUNS_UNTIL_UNSCORED = 3


def require_answers(rows: Sequence[Row]) -> None:
    """Refuse to finish while images lack an answer for reasons that another run may not have.

    An image that failed like this in several runs is unscored like any other: it must not block the rest forever.

    Raises:
        EnvironmentFailure: there are such images; the journal keeps the answers to the others.
    """
    open_rows = [row for row in rows if 0 < row.get("runs", 0) < RUNS_UNTIL_UNSCORED]
    if open_rows:
        reasons = Counter(row["reason_class"] for row in open_rows)
        raise EnvironmentFailure(
            f"{len({row['id'] for row in open_rows})} images were not answered "
            f"({', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}; the first: "
            f"{open_rows[0]['problem']}); run the same command again."
        )


def require_scores(rows: Sequence[Row], options: Options) -> None:
    """Refuse a result without a single score: judge, wording or limit do not fit, and the user can change them.

    Raises:
        UserError: there is none.
    """
    if any(row["score"] is not None for row in rows):
        return
    reasons = Counter(row["reason_class"] for row in rows)
    raise UserError(
        f"None of the {len(rows)} answers of {options.judge} holds a score "
        f"({', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}); the first: "
        f"{rows[0]['problem'].rstrip('.')}."
    )


def judge_image(samples: SampleSet, requests: RequestSet, judge: Judge, wording: Wording, question: Question) -> Row:
    """Ask about one image until a reply can be read, at most `attempts` times.

    Raises:
        EnvironmentFailure: the judge is gone.
    """
    index, number = question
    request = requests[index]
    image_png = encode_png(samples.images([index])[0])
    user = wording.fill_in(str(request.prompt), str(request.meta["Explanation"]))
    row: Row = {
        "id": request.id,
        "prompt_id": request.meta["prompt_id"],
        "Subcategory": request.meta.get("Subcategory"),
        "round": number,
        "score": None,
        "replies": [],
    }
    for _ in range(judge.options.attempts):
        try:
            reply = judge.ask(image_png, wording.system, user)
        except NoAnswer as problem:
            judge.models()  # raises if the judge is gone, and the run stops; otherwise only this image failed
            row |= {"reason_class": problem.reason_class, "problem": str(problem)}
            continue
        row["replies"].append(reply.text)
        reading = read(requests.benchmark, reply)
        row["score"] = reading.score
        if row["score"] is not None:
            return {name: value for name, value in row.items() if name not in ("reason_class", "problem")}
        row |= {"reason_class": reading.reason_class, "problem": reading.problem}
    return row


# --- the record ------------------------------------------------------------------------------------------------------


def key_of(request: Request, number: int) -> str:
    """An answer's key in the journal."""
    return f"{request.id}#{number}"


def unscored(row: Row) -> Unscored:
    """An image without a score in one round, with the last reply or error."""
    return Unscored(id=f"{row['id']}#{row['round']}", reason_class=row["reason_class"], reason=row["problem"])


def served_as(served: Row, options: Options) -> Row:
    """The judge, as far as the server describes it."""
    names = ("id", "root", "owned_by", "max_model_len")
    told: Row = {name: served[name] for name in names if type(served.get(name)) in (str, int)}
    return {**told, "revision": options.judge_revision}


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
