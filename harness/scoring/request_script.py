"""The command `SCRIPT --spec FILE --assets DIR --out DIR`, which writes the request set of a benchmark.

A benchmark whose prompts have a format of their own brings a function; this module is everything around it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError
from harness.contract.files import read_json
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, prompt_requests
from harness.scoring.scorer import Assets

Spec = Mapping[str, Any]
"""benchmark, version, protocol, requests (as in benchmark.yaml), limit, run_seed."""
MakeRequests = Callable[[Spec, Assets], RequestSet]


def run_request_script(make: MakeRequests, argv: Sequence[str] | None = None) -> int:
    """Read the specification, make the request set, keep the first `limit`, write it; returns the exit status.

    make: the whole set, given the specification and the folder with one folder per asset.
    """
    parser = argparse.ArgumentParser(prog=Path(sys.argv[0]).name, description="Write the request set of a benchmark.")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--assets", type=Path, default=Path(), help="one folder per asset, where there are any")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        limited(make, read_json(arguments.spec), Assets(arguments.assets)).write(arguments.out)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def limited(make: MakeRequests, spec: Spec, assets: Assets) -> RequestSet:
    """What `make` makes, cut to the first `limit` of the specification; the seeds stay."""
    requests = make(spec, assets)
    return requests if spec["limit"] is None else requests.limit(spec["limit"])


def requests_for(spec: Spec, prompts: Sequence[Prompt], *, layout: str, repeats: int = 1) -> RequestSet:
    """`prompt_requests` with benchmark, version, protocol and run seed of the specification."""
    return prompt_requests(
        spec["benchmark"],
        spec["version"],
        SamplingProtocol(**spec["protocol"]),
        prompts=prompts,
        repeats=repeats,
        layout=layout,
        run_seed=spec["run_seed"],
    )
