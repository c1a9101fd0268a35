"""Engines that speak Docker's protocol, each in its own way: other words, nonsense, silence. A step always ends."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import EnvironmentFailure
from harness.planning.steps import Environment, Resources, Step
from harness.runtimes import Outcome, Places, RuntimeOptions
from harness.runtimes import docker as docker_runtime
from harness.runtimes.docker import DockerRuntime
from tests.harness.conftest import Toy

READY = {"Id": "c1", "Config": {"Tty": False}, "State": {"Status": "created", "ExitCode": 0}}
SILENCE = object()
HANG_UP = object()


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server on a socket. `answers`: what it says instead, by method and last part of the address; "GET json", where
    it describes the container, only from the start on."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.started, self.closing = threading.Event(), threading.Event()

    def answer(self, request: str) -> Any:
        self.asked.append(request)
        if request == "POST start":
            self.started.set()
        usual = {
            "GET version": {"ApiVersion": "1.43", "Version": "0.1"},
            "GET json": READY,
            "POST create": {"Id": "c1", "Warnings": []},
        }
        odd = request in self.answers and (request != "GET json" or self.started.is_set())
        return self.answers[request] if odd else usual.get(request, {})


def as_bytes(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(f"{self.command} {self.path.partition('?')[0].rpartition('/')[2]}")
        if answer is SILENCE:
            self.server.closing.wait()
        elif answer is not HANG_UP:
            self.reply(answer)
        self.close_connection = True

    def reply(self, answer: Any) -> None:
        attached = self.path.partition("?")[0].endswith("/attach")
        self.send_response(101 if attached else 200)
        self.end_headers()
        if attached:  # the output of the container, which follows its start
            self.server.started.wait()
        self.wfile.write(b"\1\0\0\0\0\0\0\6hello\n" if attached else as_bytes(answer))

    do_GET = do_POST = do_DELETE = handle_any

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(docker_runtime, "_END_S", 2.0)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    with Engine(tmp_path / "engine.sock") as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.started.set()
        server.closing.set()
        server.shutdown()


class Odd:
    """A step to run on the engine."""

    def __init__(self, toy: Toy) -> None:
        self.places = Places(inputs={}, work=toy.root / "work")
        self.places.output.mkdir(parents=True)
        self.lines: list[str] = []
        options = RuntimeOptions(images={"toy": "toy:ready"})
        self.runtime = DockerRuntime(toy.project, toy.home, options)
        self.stop = threading.Event()

    def run(self, timeout_s: float | None = None) -> Outcome:
        toy = Environment(name="toy", image="toy", keyed=True)
        resources = Resources(timeout_s=timeout_s)
        step = Step(name="score-toy", kind="x", environment=toy, argv=("{python}",), resources=resources)
        return self.runtime.run(step, self.places, self.lines.append, self.stop.is_set)


@pytest.fixture
def odd(toy: Toy, engine: Engine) -> Odd:
    return Odd(toy)


def ended(status: Any, exit_code: Any = 3, **others: Any) -> dict[str, Any]:
    return {**READY, "State": {"Status": status, "ExitCode": exit_code, **others}}


@pytest.mark.parametrize("word", ["exited", "dead", "stopped", "removing", "gone fishing", "", None, 7])
def test_a_container_that_does_not_run_any_more_has_ended_whatever_the_engine_calls_that(odd, engine, word):
    engine.answers["GET json"] = ended(word)
    outcome = odd.run()
    assert (outcome.exit_code, outcome.reason, odd.lines) == (3, "", ["hello"])
    assert engine.asked[-1] == "DELETE c1"


def test_too_much_memory_is_told_from_other_ends(odd, engine):
    engine.answers["GET json"] = ended("stopped", 137, OOMKilled=True)
    assert odd.run().reason == "out of memory"


@pytest.mark.parametrize(
    "nonsense",
    [
        [],
        {},
        "exited",
        None,
        {"State": None},
        {"State": "exited"},
        {"State": {"ExitCode": 0}},
        {"State": {"Status": ["exited"], "ExitCode": 0}},
        {"State": {"Status": "exited"}},
        {"State": {"Status": "exited", "ExitCode": "seven"}},
        b"<html>504 Gateway Time-out</html>",
        b"",
        HANG_UP,
    ],
)
def test_nonsense_ends_the_step_with_a_sentence(odd, engine, nonsense):
    engine.answers["GET json"] = nonsense
    with pytest.raises(EnvironmentFailure, match=r"engine failed during 'score-toy' \(.+\); check it with: "):
        odd.run()
    assert engine.asked[-1] == "DELETE c1"


SILENT = ["POST create", "POST attach", "POST start", "GET json"]
STUBBORN = {**READY, "State": {"Status": "running", "ExitCode": 0}}


@pytest.mark.parametrize("request_", SILENT)
@pytest.mark.parametrize("why", ["timeout", "cancelled"])
def test_an_engine_that_never_answers_keeps_neither_the_time_limit_nor_ctrl_c_from_working(odd, engine, request_, why):
    engine.answers[request_] = SILENCE
    assert end_by(odd, engine, why, request_).reason == why


@pytest.mark.parametrize("why", ["timeout", "cancelled"])
@pytest.mark.parametrize("deaf", [(), ("POST kill",), ("POST stop",), ("POST kill", "POST stop", "DELETE c1")])
def test_a_container_that_is_said_to_run_for_ever_is_given_up_after_it_was_asked_to_end(odd, engine, why, deaf):
    engine.answers |= {"GET json": STUBBORN} | dict.fromkeys(deaf, SILENCE)
    assert end_by(odd, engine, why, "GET json").reason == why
    assert "POST kill" in engine.asked and engine.asked[-1] == "DELETE c1"


def end_by(odd: Odd, engine: Engine, why: str, request: str) -> Outcome:
    """Run the step, and end it by its time limit, or as Ctrl-C does once `request` was made."""
    if why == "timeout":
        return odd.run(timeout_s=0.3)

    def interrupt() -> None:
        while request not in engine.asked:
            time.sleep(0.01)
        odd.stop.set()

    threading.Thread(target=interrupt, daemon=True).start()
    return odd.run()


@pytest.mark.parametrize("answer", [HANG_UP, b"no json", 7, "x"])
def test_nonsense_about_anything_else_is_a_sentence_too(odd, engine, answer):
    engine.answers["GET json"] = answer
    engine.started.set()
    with pytest.raises(EnvironmentFailure, match="engine failed when asked for an image"):
        odd.runtime.describe(Environment(name="toy", image="toy", keyed=True))
    with pytest.raises(EnvironmentFailure, match="engine failed when asked for its containers"):
        odd.runtime.clear(odd.places)
