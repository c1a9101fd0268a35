"""`python -m harness.make_requests --spec FILE --assets DIR --out DIR`: write the request set of a benchmark.

Serves `requests: {kind: classes}` and `requests: {kind: prompts}`, whose prompts are assets (`harness.prompt_files`). A
benchmark of another kind brings a script with the same three arguments (`requests: {kind: script, script: ...}`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError
from harness.contract.files import read_json
from harness.contract.requests import Protocol, RequestSet, class_requests, prompt_requests
from harness.contract.scorer import Assets
from harness.prompt_files import read_prompts


def make_requests(spec: Mapping[str, Any], assets: Path | None = None) -> RequestSet:
    """The request set that a specification asks for.

    Args:
        spec: benchmark, version, protocol, requests (as in benchmark.yaml), limit, run_seed.
        assets: the folder with one folder per asset, for prompts.
    """
    wanted = dict(spec["requests"])
    kind = wanted.pop("kind", None)
    if kind not in ("classes", "prompts"):
        raise UserError(
            f"{spec['benchmark']}: requests.kind is {kind!r}; write 'classes', 'prompts', or 'script' with a script."
        )
    try:
        protocol = Protocol(**spec["protocol"])
        common = {"benchmark": spec["benchmark"], "version": spec["version"], "protocol": protocol}
        if kind == "classes":
            requests = class_requests(**common, run_seed=spec["run_seed"], **wanted)
        else:
            repeats, layout = wanted.pop("repeats", 1), wanted.pop("layout")
            prompts = read_prompts(Assets(assets or Path()), **wanted)
            requests = prompt_requests(
                **common, prompts=prompts, repeats=repeats, layout=layout, run_seed=spec["run_seed"]
            )
    except (TypeError, KeyError) as error:
        raise UserError(f"{spec['benchmark']}: {error}; correct requests or protocol in its benchmark.yaml.") from error
    return requests if spec["limit"] is None else requests.limit(spec["limit"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.make_requests")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        make_requests(read_json(arguments.spec), arguments.assets).write(arguments.out)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
