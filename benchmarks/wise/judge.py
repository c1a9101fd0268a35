"""Asks an OpenAI-compatible server about an image. Replies are read in `replies.py`.

Failed connections and statuses that mean "later" (408, 425, 429, 5xx) are retried with growing pauses. A permanent
refusal, a timeout, and an answer in an unknown form are errors of that one image. An answer has one deadline from
question to last byte and a largest size, and is taken from the given address alone: redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ipaddress
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from benchmarks.wise.connection import Connection
from benchmarks.wise.interface import Options
from benchmarks.wise.replies import Reply
from harness.contract.errors import EnvironmentFailure
from harness.contract.shown import printable

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_NOT_OURS = frozenset({401, 403, 404})
"""Wrong key, wrong address, unknown model: every image would fail."""
_LONGEST_PAUSE_S = 60.0
_LARGEST_ANSWER = 4 * 1024**2
_SHOWN = 300

NO_FAULT_OF_THE_IMAGE = frozenset({"connection", "timeout", "server-error"})
"""Classes of temporary reasons: such an image is not unscored, but asked about again in the next run."""

_BROKEN = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
"""What the client raises when no answer arrives whole."""


class NoAnswer(Exception):
    """The judge gave no answer about one image; `reason_class` is one word to count by."""

    def __init__(self, reason_class: str, message: str) -> None:
        super().__init__(message)
        self.reason_class = reason_class


class _TooLongError(Exception):
    """An answer is larger than any answer to these questions."""


@dataclass(frozen=True)
class _Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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

    def ask(self, image_png: bytes, system: str, user: str) -> Reply:
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
        return self._reply(self._post("/chat/completions", body))

    def models(self) -> list[dict[str, Any]]:
        """What the server serves.

        Raises:
            EnvironmentFailure: it does not answer, or is not an OpenAI-compatible server.
        """
        try:
            answer = self._exchange("/models", None)
            if not httpx.codes.is_success(answer.status):
                raise ValueError(f"status {answer.status}: {self._said(answer.body)}")
            rows = [dict(row) for row in json.loads(answer.body)["data"]]
        except (*_BROKEN, _TooLongError, TimeoutError, KeyError, TypeError, RecursionError) as error:
            raise EnvironmentFailure(
                f"{self.connection.url}: the judge does not answer ({self._cause(error)}). Answers so far are kept; "
                "start it and run the same command again."
            ) from error
        return [{name: self._hidden(value) for name, value in row.items()} for row in rows]

    def require(self) -> dict[str, Any]:
        """The server's description of the judge, after checking that it serves it.

        Raises:
            EnvironmentFailure: it does not answer, or has other models.
        """
        served = self.models()
        mine = next((row for row in served if row.get("id") == self.options.judge), None)
        if mine is None:
            names = ", ".join(_printable(str(row.get("id"))) for row in served)[:_SHOWN] or "nothing"
            raise EnvironmentFailure(
                f"{self.connection.url}: serves {names}, not {self.options.judge}; start it with "
                f"--served-model-name {self.options.judge}, or name another judge: --set wise.judge=NAME"
            )
        return mine

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        """Send a question until it is answered; pauses double, with a random part to spread the threads."""
        for number in range(self.connection.retries + 1):
            asked_for = ""
            try:
                answer = self._exchange(path, body)
                if httpx.codes.is_success(answer.status):
                    return answer.body
                failure, asked_for = self._refusal(answer), answer.headers.get("Retry-After", "")
            except TimeoutError as error:
                # After minutes of waiting: this counts as an attempt, not as a connection error.
                raise NoAnswer("timeout", f"no whole answer within {self.connection.timeout_s:g} s") from error
            except _TooLongError as error:
                raise NoAnswer("malformed", str(error)) from error
            except _BROKEN as error:
                failure = NoAnswer("connection", f"the judge did not answer: {self._cause(error)}")
            if number == self.connection.retries:
                raise failure
            pause_s = min(self.connection.backoff_s * 2**number, _LONGEST_PAUSE_S) * (0.5 + random.random())
            self._sleep(max(pause_s, _seconds(asked_for)))
        raise AssertionError("unreachable")

    def _refusal(self, answer: _Answer) -> NoAnswer:
        """The failure to report if there is no further attempt; permanent ones are raised at once."""
        said = self._said(answer.body)
        if answer.status in _LATER:
            return NoAnswer("server-error", f"the judge answered with status {answer.status}: {said}")
        if answer.status in _NOT_OURS:
            raise EnvironmentFailure(
                f"{self.connection.url}: the judge refuses with status {answer.status} ({said}); check the address, "
                "the model's name and HARNESS_JUDGE_API_KEY."
            )
        if httpx.codes.is_redirect(answer.status):
            place = self._said(answer.headers.get("Location", "nowhere").encode())
            raise EnvironmentFailure(
                f"{self.connection.url}: the judge sends on to {place}, which is not followed; if that is the judge, "
                "give its address in HARNESS_JUDGE_URL."
            )
        raise NoAnswer("refused", f"the judge refused with status {answer.status}: {said}")

    def _exchange(self, path: str, body: dict[str, Any] | None) -> _Answer:
        """One question and its answer; TimeoutError at the deadline, _TooLongError, or one of `_BROKEN`."""
        # An event loop, because only it can end whatever a server is slow with: greeting, headers or body.
        try:
            return asyncio.run(asyncio.wait_for(self._receive(path, body), self.connection.timeout_s))
        except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
            raise TimeoutError(f"no whole answer within {self.connection.timeout_s:g} s") from error
        except ImportError as error:  # httpx without the package for SOCKS
            raise EnvironmentFailure(
                f"{self.connection.url}: the proxy of this environment cannot be used ({error}); set NO_PROXY to the "
                "judge's host, or give an HTTP proxy."
            ) from error

    async def _receive(self, path: str, body: dict[str, Any] | None) -> _Answer:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.connection.api_key:
            headers["Authorization"] = f"Bearer {self.connection.api_key}"
        question = {"method": "GET"} if body is None else {"method": "POST", "content": json.dumps(body)}
        uses_proxies = not _is_near(self.connection.url)
        async with (
            httpx.AsyncClient(verify=_certificates(), trust_env=uses_proxies, timeout=None) as client,
            client.stream(url=self.connection.url + path, headers=headers, **question) as response,  # type: ignore[arg-type]
        ):
            return _Answer(response.status_code, response.headers, await _body_of(response))

    def _reply(self, answer: bytes) -> Reply:
        try:
            choice = json.loads(answer)["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise NoAnswer(
                "malformed", f"the server's answer is not a chat completion: {self._said(answer)}"
            ) from error
        return Reply(self._hidden(_text_of(content)), self._hidden(str(reason or "stop"))[:_SHOWN])

    def _hidden(self, value: Any) -> Any:
        """Text as it may be kept: without the key, and without half characters, which no file can hold."""
        if not isinstance(value, str):
            return value
        return self.connection.conceal(value).encode(errors="replace").decode()

    def _said(self, body: bytes) -> str:
        """The beginning of what a server says, for a message."""
        return _printable(self._hidden(body.decode(errors="replace"))[:_SHOWN])

    def _cause(self, error: BaseException) -> str:
        """The first cause of a failure that has words: the client's own are about itself."""
        text, cause = type(error).__name__, cast(BaseException | None, error)
        while cause is not None:
            text, cause = str(cause) or text, cause.__cause__
        return self._said(text.encode(errors="replace"))


async def _body_of(response: httpx.Response) -> bytes:
    """The body; of a refusal its beginning, as far as it came."""
    body = bytearray()
    try:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _LARGEST_ANSWER:
                raise _TooLongError(f"the answer is longer than {_LARGEST_ANSWER // 1024**2} MB")
            if not response.is_success and len(body) > _SHOWN:
                break
    except httpx.HTTPError:
        if response.is_success:
            raise
    return bytes(body)


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


def _text_of(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def _seconds(asked_for: str) -> float:
    """What a server asks to wait (`Retry-After`), within bounds; a date counts as nothing."""
    is_number = asked_for.isascii() and asked_for.isdigit()
    return min(float(asked_for), _LONGEST_PAUSE_S) if is_number else 0.0


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Those of the machine, where a site's own authority may be among them; read once."""
    return ssl.create_default_context()


def _is_near(url: str) -> bool:
    """Whether a server is on this machine or its own network, where no proxy should be used."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _printable(text: str) -> str:
    """Others' text for a message, on one line."""
    return printable(" ".join(text.split()))
