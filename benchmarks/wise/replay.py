"""A judge that answers from a script, over real HTTP: for the gold check, and for tests of what servers do wrong.

It serves one model, `replay` unless told otherwise. "case NAME" in the question chooses the script; each further
question about the same case gets the next line of its script, and the last line is repeated.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "replay"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One answer of a script."""

    text: str = ""
    """The reply."""
    status: int = 200
    body: str | None = None
    """Sent instead of a chat completion."""
    delay_s: float = 0.0
    hang_up: bool = False
    """Close the connection without a reply."""
    break_off: bool = False
    """Announce more than is sent, and close the connection."""
    finish_reason: str = "stop"
    raw: bytes | None = None
    """Sent instead of all of HTTP, and followed by `then` again and again, until the client hangs up."""
    then: bytes = b""
    every_s: float = 0.0
    """Pause before each `then`."""


Script = Mapping[str, Sequence[Line]]

GOLD: Script = {
    "plain one": [Line(text="Score: 1")],
    "plain zero": [Line(text="Score: 0")],
    "bold": [Line(text="**Score**: 1")],
    "bare": [Line(text="1\n")],
    "thinking": [Line(text="<think>It could be Score: 0.</think>\nScore: 1")],
    "later": [Line(status=503), Line(text="Score: 1")],
    "hang up": [Line(hang_up=True), Line(text="Score: 0")],
    "broken JSON": [Line(body='{"choices": ['), Line(text="Score: 1")],
    "empty": [Line(text=""), Line(text="Score: 1")],
    "never": [Line(text="I would rather not say.")],
}
"""Every form of a score, one script for each kind of failure, and one without a score."""


@contextmanager
def serve(script: Script, model: str = MODEL, owner: str = "") -> Iterator[str]:
    """Run the judge on a free port of this machine; yields its address."""
    server = ReplayServer(script, model, owner=owner)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


class ReplayServer(ThreadingHTTPServer):
    """Answers on `address`; port 0 takes a free one."""

    daemon_threads = True

    def __init__(
        self, script: Script, model: str, address: tuple[str, int] = ("127.0.0.1", 0), owner: str = ""
    ) -> None:
        super().__init__(address, _Handler)
        self.model, self.owner = model, owner
        self.script = script
        self.asked: dict[str, int] = {}
        self.lock = threading.Lock()

    def next_line(self, question: str) -> Line:
        """The answer to a question."""
        match = re.search(r"case ([\w ]+)", question)
        lines = self.script.get(match.group(1).strip() if match else "", ())
        if not match or not lines:
            return Line(status=400, body='{"error": "no script for this question"}')
        with self.lock:
            number = self.asked.get(match.group(1), 0)
            self.asked[match.group(1)] = number + 1
        return lines[min(number, len(lines) - 1)]


class _Handler(BaseHTTPRequestHandler):
    server: ReplayServer

    def do_GET(self) -> None:
        row = {"id": self.server.model, "object": "model", "root": "a script", "owned_by": self.server.owner}
        self._send(200, json.dumps({"data": [row]}))

    def do_POST(self) -> None:
        body: Any = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][-1]["content"]
        line = self.server.next_line(" ".join(part.get("text", "") for part in parts))
        time.sleep(line.delay_s)
        if line.hang_up:
            self.close_connection = True
            return
        if line.raw is not None:
            self._send_raw(line, line.raw)
            return
        message = {"role": "assistant", "content": line.text}
        completion = {"choices": [{"message": message, "finish_reason": line.finish_reason}]}
        text = json.dumps(completion) if line.body is None else line.body
        self._send(line.status, text, missing=1 if line.break_off else 0)

    def _send(self, status: int, text: str, missing: int = 0) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + missing))
        self.end_headers()
        self.wfile.write(data)

    def _send_raw(self, line: Line, raw: bytes) -> None:
        self.close_connection = True
        with suppress(OSError):  # the client may hang up
            self.wfile.write(raw)
            while line.then:
                time.sleep(line.every_s)
                self.wfile.write(line.then)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: the scorer's log is for people."""
