"""Asks an OpenAI-compatible server about an image. Replies are read in `replies.py`.

Failed connections and statuses that mean "later" (408, 425, 429, 5xx) are retried with growing pauses. A permanent
refusal, a timeout, and an answer in an unknown form are errors of that one image.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.wise.connection import Connection
from benchmarks.wise.interface import Options
from harness.contract.errors import EnvironmentFailure

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_NOT_OURS = frozenset({401, 403, 404})
"""Wrong key, wrong address, unknown model: every image would fail."""
_LONGEST_PAUSE_S = 60.0
_SHOWN = 300

NO_FAULT_OF_THE_IMAGE = frozenset({"connection", "timeout", "server-error"})
"""Classes of temporary reasons: such an image is not unscored, but asked about again in the next run."""


class NoAnswer(Exception):
    """The judge gave no answer about one image; `reason_class` is one word to count by."""

    def __init__(self, reason_class: str, message: str) -> None:
        super().__init__(message)
        self.reason_class = reason_class


class Judge:
    """A judge behind a server.

    Args:
        connection: the address, timeouts and retries.
        options: the model and its settings.
        sleep: waits; replaced in tests of the pauses.
    """

    def __init__(self, connection: Connection, options: Options, sleep: Callable[[float], None] = time.sleep) -> None:
        self.connection = connection
        self.options = options
        self._sleep = sleep
        proxies = urllib.request.ProxyHandler({}) if _is_near(connection.url) else urllib.request.ProxyHandler()
        self._opener = urllib.request.build_opener(proxies)

    def ask(self, image_png: bytes, system: str, user: str) -> str:
        """The judge's reply about one image.

        Raises:
            NoAnswer: there is none for this image.
            EnvironmentFailure: there would be none for any image: wrong key, address or model.
        """
        body: dict[str, Any] = {
            "model": self.options.judge,
            "messages": messages(image_png, system, user),
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_tokens,
        }
        if self.options.disable_thinking:
            body["chat_template_kwargs"] = {"enable_thinking": False}  # top level: this is raw HTTP
        return _content(self._post("/chat/completions", body))

    def models(self) -> list[dict[str, Any]]:
        """What the server serves.

        Raises:
            EnvironmentFailure: it does not answer, or is not an OpenAI-compatible server.
        """
        try:
            with self._opener.open(self._request("/models", None), timeout=self.connection.timeout_s) as response:
                rows = json.loads(response.read())["data"]
            return [dict(row) for row in rows]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError) as error:
            raise EnvironmentFailure(
                f"{self.connection.url}: the judge does not answer ({_short(error)}). Answers so far are kept; start "
                "it and run the same command again."
            ) from error

    def require(self) -> dict[str, Any]:
        """The server's description of the judge, after checking that it serves it.

        Raises:
            EnvironmentFailure: it does not answer, or has other models.
        """
        served = self.models()
        mine = next((row for row in served if row.get("id") == self.options.judge), None)
        if mine is None:
            names = ", ".join(str(row.get("id")) for row in served) or "nothing"
            raise EnvironmentFailure(
                f"{self.connection.url}: serves {names}, not {self.options.judge}; start it with "
                f"--served-model-name {self.options.judge}, or name another judge: --set wise.judge=NAME"
            )
        return mine

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        """Send a question until it is answered; pauses double, with a random part to spread the threads."""
        for number in range(self.connection.retries + 1):
            try:
                with self._opener.open(self._request(path, body), timeout=self.connection.timeout_s) as response:
                    answer: bytes = response.read()
                return answer
            except urllib.error.HTTPError as error:
                failure = self._refusal(error)
                asked_for = error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, TimeoutError) or "timed out" in str(error):
                    # After minutes of waiting: this counts as an attempt, not as a connection error.
                    raise NoAnswer("timeout", f"no answer within {self.connection.timeout_s:g} s") from error
                failure, asked_for = NoAnswer("connection", f"the judge did not answer: {_short(error)}"), ""
            if number == self.connection.retries:
                raise failure
            pause_s = min(self.connection.backoff_s * 2**number, _LONGEST_PAUSE_S) * (0.5 + random.random())
            self._sleep(max(pause_s, min(float(asked_for), _LONGEST_PAUSE_S) if asked_for.isdigit() else 0.0))
        raise AssertionError("unreachable")

    def _refusal(self, error: urllib.error.HTTPError) -> NoAnswer:
        """The failure to report if there is no further attempt; permanent ones are raised at once."""
        said = _beginning(error)
        if error.code in _LATER:
            return NoAnswer("server-error", f"the judge answered with status {error.code}: {said}")
        if error.code in _NOT_OURS:
            raise EnvironmentFailure(
                f"{self.connection.url}: the judge refuses with status {error.code} ({said}); check the address, the "
                "model's name and HARNESS_JUDGE_API_KEY."
            )
        raise NoAnswer("refused", f"the judge refused with status {error.code}: {said}")

    def _request(self, path: str, body: dict[str, Any] | None) -> urllib.request.Request:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.connection.url + path, data=data)
        request.add_header("Content-Type", "application/json")
        if self.connection.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.connection.api_key}")
        return request


def messages(image_png: bytes, system: str, user: str) -> list[dict[str, Any]]:
    """A system message of one text part, and a user message of text and image."""
    url = "data:image/png;base64," + base64.b64encode(image_png).decode()
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": user}, {"type": "image_url", "image_url": {"url": url}}],
        },
    ]


def _beginning(error: urllib.error.HTTPError) -> str:
    """What a server says with a status; a body that breaks off is kept as far as it came."""
    try:
        return error.read(_SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as broken:
        return f"the rest broke off: {_short(broken)}"


def _content(answer: bytes) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        shown = answer[:_SHOWN].decode(errors="replace")
        raise NoAnswer("malformed", f"the server's answer is not a chat completion: {shown}") from error
    # Half a character (a surrogate without its pair) cannot be written to a file.
    return "" if content is None else str(content).encode(errors="replace").decode()


def _is_near(url: str) -> bool:
    """Whether a server is on this machine or its own network, where no proxy should be used."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:_SHOWN]
