"""A service of a step: a real server beside a real scorer, which dies, hangs, is killed, and ends with its step."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import api
from harness.contract.errors import MissingAsset, UserError
from harness.planning.hub_cache import inputs_by_file
from harness.planning.services import ServedModel, named_model, served_model
from harness.planning.steps import Document, FileInput, Plan, Step
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.runtimes import Places, RuntimeOptions
from harness.runtimes.docker import DockerRuntime
from harness.store.run_record import RunRecord
from tests.harness.conftest import Toy
from tests.harness.runtimes.test_docker import DOCKERFILE

NUM_IMAGES = 12

SERVER = """
    import argparse, json, os, signal, sys, time, urllib.request
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from pathlib import Path

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--options", type=Path)
    parser.add_argument("--probe")
    arguments = parser.parse_args()
    if arguments.probe:
        sys.exit(urllib.request.urlopen(arguments.probe + "/probe", timeout=2).status != 200)

    model = json.loads((arguments.model / "config.json").read_text())  # what to do at each start
    trace = Path(model["trace"])
    trace.mkdir(exist_ok=True)
    start = len(list(trace.glob("start-*")))
    how = model["starts"][min(start, len(model["starts"]) - 1)]
    note = {"pid": os.getpid(), "path": os.environ["PATH"], "options": json.loads(arguments.options.read_text())}
    (trace / f"start-{start}").write_text(json.dumps(note))
    print("loading the model", flush=True)
    if "exit" in how:
        print("this model cannot be served", flush=True)
        sys.exit(how["exit"])
    answers = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            global answers
            if self.path != "/probe":
                answers += 1
            if answers > how.get("answers", 10**9):
                if how.get("hang"):
                    time.sleep(600)
                os._exit(9)
            time.sleep(how.get("nap", 0))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"7")

        def log_message(self, *words):
            print("asked for", self.path, flush=True)

    def leave(*_):
        print("leaving", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if os.fork() == 0:  # a part of the server, which would outlive it
        os.setsid() if how.get("setsid") else None
        time.sleep(600)
        os._exit(0)
    print(f"HARNESS_JUDGE_URL=http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
"""

SCORER = """
    import os, urllib.request

    from benchmarks.toy.interface import METRICS
    from harness.contract.errors import EnvironmentFailure
    from harness.contract.interface import Metrics
    from harness.contract.record import ScoreRecord
    from harness.scoring.scorer import run_scorer


    def score(job):
        journal = job.out / "answers.txt"
        known = journal.read_text().split() if journal.exists() else []
        with journal.open("a") as answers:
            for name in job.samples.ids[len(known) :]:
                try:
                    with urllib.request.urlopen(f"{os.environ['HARNESS_JUDGE_URL']}/{name}", timeout=1) as answer:
                        known.append(answer.read().decode())
                except OSError as error:
                    raise EnvironmentFailure(f"the judge does not answer ({error})")
                print(known[-1], file=answers, flush=True)
        print("asked about", len(known))
        metric = Metrics(METRICS).make("brightness", sum(map(float, known)) / len(known), n=len(known))
        return ScoreRecord(benchmark="toy", benchmark_version=1, metrics=[metric])


    if __name__ == "__main__":
        raise SystemExit(run_scorer(score))
"""


class Served:
    """The toy, whose scorer asks a service."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.trace, self.folder = toy.root / "starts", toy.root / "models" / "seven"
        self.trace.mkdir()
        self.folder.mkdir(parents=True)
        folder = toy.root / "benchmarks/toy"
        (folder / "serve.py").write_text(textwrap.dedent(SERVER))
        (folder / "scorer.py").write_text(textwrap.dedent(SCORER))
        (folder / "service.lock").write_text("# nothing but an interpreter\n")
        spec = "{script: serve.py, lock: benchmarks/toy/service.lock, model_option: judge, gpus: 1, memory_gb: 0.5}"
        url = "variables: {HARNESS_JUDGE_URL: the address of a server.}"
        scorer = f"scorer: {{script: scorer.py, image: toy, network: true, resumes: true, {url}, service: {spec}}}"
        toy.edit("benchmarks/toy/benchmark.yaml", "scorer: {script: scorer.py, image: toy}", scorer)
        toy.edit("benchmarks/toy/interface.py", "    scale: float", '    judge: str = "none"\n    scale: float')
        self.starts_as({})

    def starts_as(self, *starts: dict[str, Any], trace: str = "") -> None:
        (self.folder / "config.json").write_text(json.dumps({"trace": trace or str(self.trace), "starts": starts}))

    @property
    def started(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.trace.glob("start-*")) if path.stat().st_size]

    @property
    def asked(self) -> int:
        """Answers that are written down."""
        files = self.toy.runs_dir.glob(".store/work/score-*/output/answers.txt")
        return sum(len(path.read_text().split()) for path in files)

    def plan(self, **request: Any) -> Plan:
        return self.toy.plan(**{"judge": self.folder, **request})

    def words(self) -> list[str]:
        return [*self.toy.run_words(), "--judge", str(self.folder)]

    def run(self) -> RunRecord:
        return self.toy.run(judge=self.folder)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.toy.runs_dir.glob(".store/**/log.txt"))


@pytest.fixture
def served(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Served:
    for name in [name for name in os.environ if name.startswith("HARNESS_JUDGE_")]:
        monkeypatch.delenv(name)
    return Served(toy)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def servers(toy: Toy) -> list[int]:
    """Living processes that run the toy's service, parts of it included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"toy/serve.py") and str(toy.root).encode() in word for word in words):
                found.append(int(folder.name))
    return found


def options_of(step: Step) -> dict[str, Any]:
    document = step.inputs["options.json"]
    assert isinstance(document, Document)
    found: dict[str, Any] = document.value
    return found


def test_the_score_has_the_service_beside_it_and_no_other_step_has(served: Served) -> None:
    plan = served.plan()
    assert [step.name for step in plan.steps if step.has_service] == ["score-toy"]
    step = plan.step("score-toy")
    assert (step.resources.gpus, step.resources.memory_gb, step.resources.network) == (1, 4.5, False)
    assert step.variables == {} and "model/config.json" in step.inputs
    assert options_of(step)["judge"] == "seven" and step.needs == ("sample-toy",)


def test_a_name_that_the_user_gives_the_model_stays(served: Served) -> None:
    step = served.plan(options={"toy": {"judge": "mine"}}).step("score-toy")
    assert options_of(step)["judge"] == "mine"


def test_without_a_model_the_step_asks_a_server_and_its_key_is_the_one_of_before(served: Served) -> None:
    step = served.plan(judge=None).step("score-toy")
    assert not step.has_service and step.resources.network and step.environment.beside is None
    assert "--judge DIR" in step.variables["HARNESS_JUDGE_URL"]


def test_other_weights_under_the_same_name_are_another_score(served: Served) -> None:
    assert served.run().step("score-toy").status == "run"
    assert served.run().step("score-toy").status == "cached"
    served.starts_as({}, {})
    assert served.run().step("score-toy").status == "run"


def test_a_service_is_started_after_the_samples_asked_and_ended(served: Served) -> None:
    record = served.run()
    assert record.status == "finished", record.step("score-toy").error
    (start,) = served.started
    assert start["options"]["judge"] == "seven"
    assert start["path"].split(os.pathsep)[0].startswith(f"{served.toy.home}/envs/toy-service-")
    assert "service: loading the model" in served.log() and "service: asked for /toy" in served.log()
    assert servers(served.toy) == [] and "leaving" not in served.log()
    beside = record.step("score-toy").environment["beside"]
    assert beside["lock"] == "benchmarks/toy/service.lock"


def test_a_service_that_is_killed_in_the_middle_is_started_again_and_nothing_is_asked_twice(served: Served) -> None:
    served.starts_as({"nap": 0.1})
    harness = served.toy.harness(*served.words())
    wait_for(lambda: served.asked >= 3)
    os.kill(served.started[0]["pid"], signal.SIGKILL)
    output, _ = harness.communicate(timeout=120)
    assert harness.returncode == 0, output
    assert len(served.started) == 2 and "The service ended with exit code -9; it is started again." in served.log()
    assert served.log().count("asked for /toy") <= NUM_IMAGES + 1 and servers(served.toy) == []


def test_a_service_that_dies_twice_fails_the_run_and_the_same_command_continues(served: Served) -> None:
    served.starts_as({"answers": 4}, {"answers": 3}, {})
    record = served.run()
    step = record.step("score-toy")
    assert (record.status, step.status, exit_code(record)) == ("failed", "failed", 6)
    assert "The service ended with exit code 9, and when it had been started again, it ended with exit" in step.error
    assert "service: asked for" in step.error and "Whole log: " in step.error and served.asked == 7
    assert servers(served.toy) == []
    again = served.run()
    assert again.step("score-toy").status == "resumed" and len(served.started) == 3


def test_a_service_that_hangs_is_started_again(served: Served) -> None:
    served.starts_as({"answers": 4, "hang": True}, {})
    assert served.run().status == "finished"
    assert len(served.started) == 2 and "The service answers no more; it is started again." in served.log()


@pytest.mark.parametrize(("status", "starts"), [(2, 1), (4, 1), (1, 2), (6, 2)])
def test_a_model_that_cannot_be_served_is_the_end_of_the_run(served: Served, status: int, starts: int) -> None:
    served.starts_as({"exit": status})
    record = served.run()
    assert exit_code(record) == (status if status in (2, 4) else 6)
    assert "this model cannot be served" in record.step("score-toy").error and len(served.started) == starts


def test_when_the_harness_is_killed_the_service_ends_with_it(served: Served) -> None:
    served.starts_as({"nap": 0.5, "setsid": True})
    harness = served.toy.harness(*served.words())
    wait_for(lambda: served.asked >= 1)
    assert len(servers(served.toy)) >= 2
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    wait_for(lambda: servers(served.toy) == [])


def test_when_the_run_is_stopped_the_service_ends_and_the_same_command_continues(served: Served) -> None:
    served.starts_as({"nap": 0.3, "setsid": True})
    harness = served.toy.harness(*served.words())
    wait_for(lambda: served.asked >= 2)
    harness.send_signal(signal.SIGTERM)
    output, _ = harness.communicate(timeout=60)
    assert harness.returncode == 130 and "the same command continues" in output
    assert servers(served.toy) == [] and 2 <= served.asked < NUM_IMAGES
    assert served.run().step("score-toy").status == "resumed"


def test_the_environment_of_a_service_can_be_built_beforehand(served: Served) -> None:
    ((name, row),) = api.prepare("toy-service")
    assert name == "toy-service" and row["lock"] == "benchmarks/toy/service.lock"
    setting = served.toy.setting()
    assert setting.runtime.is_ready(served.plan().step("score-toy").environment)
    with pytest.raises(UserError, match="no environment 'adm-service'"):
        list(api.prepare("adm-service"))


def test_a_program_of_the_users_own_takes_the_place_of_the_lock(served: Served) -> None:
    step = served.plan(service_program="/opt/own/server").step("score-toy")
    assert step.environment.beside is None and step.identity["service_program"] == "/opt/own/server"


@pytest.mark.engine
def test_a_service_in_a_container_has_its_step_to_itself_and_is_started_again(served: Served) -> None:
    toy = served.toy
    (toy.root / "docker" / "toy").mkdir(parents=True)
    (toy.root / "docker" / "toy" / "Dockerfile").write_text(DOCKERFILE)
    served.starts_as({"answers": 4}, {}, trace="/scratch/starts")
    runtime = DockerRuntime(toy.project, toy.home, RuntimeOptions(base_image=os.environ.get("BASE_IMAGE")))
    record, _ = run_plan(served.plan(), toy.setting(runtime=runtime))
    assert record.status == "finished", record.step("score-toy").error
    assert "The service ended with exit code 9; it is started again." in served.log()
    assert "--network none" in served.log() and served.log().count("asked for /toy") == NUM_IMAGES


# --- which model -----------------------------------------------------------------------------------------------------


def test_a_model_is_a_folder_named_on_the_command_line_or_in_the_environment(served: Served) -> None:
    folder = str(served.folder)
    assert served_model(folder) == ServedModel(name="seven", folder=served.folder)
    assert named_model(None, {"HARNESS_JUDGE_MODEL": folder}) == folder
    assert named_model(None, {}) is None and named_model(None, {"HARNESS_JUDGE_MODEL": ""}) is None
    running = {"HARNESS_JUDGE_MODEL": folder, "HARNESS_JUDGE_URL": "http://host/v1"}
    assert named_model(None, running) is None and named_model("other", running) == "other"


def test_a_model_in_the_environment_is_none_of_the_business_of_a_benchmark_without_a_service(toy: Toy) -> None:
    assert toy.plan(judge="no/such/model").steps == toy.plan().steps


def test_a_repository_of_the_hub_is_taken_from_its_cache_with_links_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    repository, commit = cache / "models--Owner--Seven-7B", "c" * 40
    for folder in ("blobs", "refs", f"snapshots/{commit}/.cache"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs" / "a1").write_text("{}")
    (repository / "refs" / "main").write_text(commit)
    (repository / f"snapshots/{commit}/config.json").symlink_to("../../blobs/a1")
    (repository / f"snapshots/{commit}/.cache/x").write_text("x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    for given in ("Owner/Seven-7B", "hf://Owner/Seven-7B", f"Owner/Seven-7B@{commit}"):
        model = served_model(given)
        assert (model.name, model.revision) == ("Seven-7B", commit)
        given_to_step = inputs_by_file("model", model.folder)
        assert given_to_step == {"model/config.json": FileInput((repository / "blobs" / "a1").resolve())}
    assert served_model(repository / f"snapshots/{commit}").name == "Seven-7B"
    with pytest.raises(MissingAsset, match=r"hf download Owner/Other "):
        served_model("Owner/Other")


@pytest.mark.parametrize("given", ["no/such/folder", "typo", "/no/such", "a b/c", "README", "../x", "", "models"])
def test_what_is_no_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README").write_text("x")
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "config.json").touch()
    with pytest.raises(UserError, match="--judge"):
        served_model(given)


def test_a_judge_for_nothing_is_refused(toy: Toy) -> None:
    (toy.root / "model").mkdir()
    (toy.root / "model" / "config.json").touch()
    harness = toy.harness(*toy.run_words(), "--judge", toy.root / "model")
    output, _ = harness.communicate(timeout=60)
    assert harness.returncode == 2 and "nothing in this run asks a judge" in output


def test_a_service_whose_scorer_cannot_continue_is_refused(served: Served) -> None:
    served.toy.edit("benchmarks/toy/benchmark.yaml", "resumes: true, ", "")
    with pytest.raises(UserError, match="resumes: true"):
        served.toy.catalog  # noqa: B018


def test_a_command_line_shows_the_service(served: Served) -> None:
    setting = served.toy.setting()
    step = served.plan().step("score-toy")
    line = setting.runtime.command(step, Places(inputs={}, work=served.toy.root / "work"))
    assert line[line.index("-m") + 1 : line.index("-m") + 3] == ["harness.scoring.with_service", "HARNESS_JUDGE_URL"]
