"""Serves WISE's judge with vLLM; it is ready once it has answered a question about an image.

The harness runs it beside the scorer (`harness run --judge DIR`; `harness.scoring.with_service`). By hand:

    python benchmarks/wise/serve.py --model DIR                            on a free port, until it is stopped
    python benchmarks/wise/serve.py --model DIR -- harness run ...         for one command, which finds the judge
    python benchmarks/wise/serve.py --probe http://host:8000/v1            does a judge answer about an image?

$HARNESS_JUDGE_FLAGS replaces the protocol's own flags of `vllm serve`, $HARNESS_JUDGE_PROGRAM the `vllm` on PATH.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.wise.connection import Connection
from benchmarks.wise.interface import Options
from benchmarks.wise.judge import Judge, NoAnswer
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import read_json
from harness.contract.images import encode_png

# The flags of the protocol: one GPU, and kernels that need no tuning when the server starts.
FLAGS = (
    *("--tensor-parallel-size", "1"),
    *("--moe-backend", "triton"),
    *("--gdn-prefill-backend", "triton"),
    "--no-enable-flashinfer-autotune",
    "--enforce-eager",
)
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    # The parts of a server on one machine find each other also where there is no network but the loopback.
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Of vLLM's environment, where the user has set nothing else."""
READY_WITHIN_S = 1800.0
_POLL_S = 2.0
_PROBE_SIDE = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or probe; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[words.index("--") + 1 :] if "--" in words else []
    arguments = _parser().parse_args(words[: words.index("--")] if "--" in words else words)
    try:
        arguments.name = arguments.name or _name_in(arguments.options)
        if arguments.probe:
            print(f"the judge answers: {probe(arguments.probe, arguments.name)!r}")
            return 0
        if not arguments.model:
            raise UserError("Give --model DIR, the judge's folder of weights, or --probe URL.")
        return serve(arguments, command)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


def probe(url: str, name: str, timeout_s: float = 60.0) -> str:
    """Ask about one plain picture, as the scorer does: a server that answers `/health` may crash on its first image.

    Raises:
        EnvironmentFailure: there is no such judge, or it cannot answer.
    """
    judge = Judge(Connection(url=url.rstrip("/"), timeout_s=timeout_s, retries=0), Options(judge=name, max_tokens=8))
    judge.require()
    picture = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), (255, 0, 0), np.uint8)
    try:
        return judge.ask(encode_png(picture), "You look at pictures.", "Which colour is this picture? One word.").text
    except NoAnswer as error:
        raise EnvironmentFailure(f"{url}: the judge cannot answer about an image ({error}); see its log.") from error


def serve(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Start vLLM, wait until it answers about an image, then run the command with its address, or wait for its end."""
    # Its parts talk through sockets, whose paths have at most 107 bytes: temporary folders of steps are longer.
    with tempfile.TemporaryDirectory(prefix="judge-", dir="/tmp") as sockets:
        return _serve(arguments, command, {**_QUIET, "VLLM_RPC_BASE_PATH": sockets, **os.environ})


def _serve(arguments: argparse.Namespace, command: Sequence[str], variables: Mapping[str, str]) -> int:
    port = arguments.port or free_port()
    url = f"http://127.0.0.1:{port}/v1"
    line = server_command(arguments.model, arguments.name, arguments.host, port)
    print(f"$ {shlex.join(line)}", flush=True)
    server = subprocess.Popen(line, env=variables)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        wait_until_ready(server, url, arguments.name)
        print(f"HARNESS_JUDGE_URL={url}", flush=True)
        if not command:
            return server.wait()
        return subprocess.run(command, env={**os.environ, "HARNESS_JUDGE_URL": url}, check=False).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        _end(server)


def server_command(model: str, name: str, host: str, port: int) -> list[str]:
    """The command line of vLLM. HARNESS_JUDGE_FLAGS, if set, replaces the protocol's flags.

    Raises:
        UserError: there is no such program.
    """
    named = os.environ.get("HARNESS_JUDGE_PROGRAM") or os.environ.get("VLLM") or "vllm"
    vllm = shutil.which(named)
    if vllm is None:
        raise UserError(
            f"{named}: is no program that can be run; pip install vllm, set HARNESS_JUDGE_PROGRAM to its path, or use "
            "the image wise."
        )
    given = os.environ.get("HARNESS_JUDGE_FLAGS") or os.environ.get("JUDGE_FLAGS")
    flags = shlex.split(given) if given else list(FLAGS)
    return [vllm, "serve", model, "--served-model-name", name, "--host", host, "--port", str(port), *flags]


def wait_until_ready(server: subprocess.Popen[bytes], url: str, name: str) -> None:
    """Probe until the judge answers.

    Raises:
        EnvironmentFailure: the server ended, or took too long.
    """
    deadline = time.monotonic() + READY_WITHIN_S
    problem = ""
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise EnvironmentFailure(
                f"vllm ended with {server.returncode} before the judge was ready; its log is above."
            )
        try:
            probe(url, name)
            return
        except EnvironmentFailure as error:
            problem = str(error)
        time.sleep(_POLL_S)
    raise EnvironmentFailure(f"the judge was not ready within {READY_WITHIN_S:.0f} s: {problem}")


def _name_in(options: Path | None) -> str:
    """The judge's name in the scorer's options; its default without them."""
    return Options.judge if options is None else Options.read(read_json(options), "wise").judge


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
    return port


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="judge", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", metavar="DIR", help="the judge's folder of weights")
    parser.add_argument("--probe", metavar="URL", help="ask a judge that is already running")
    parser.add_argument("--name", help=f"the name it is served under [{Options.judge}, or that in the options]")
    parser.add_argument("--options", type=Path, metavar="FILE", help="the scorer's options, which name the judge")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=0, help="[a free one]")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
