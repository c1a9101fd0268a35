"""`python -m harness.scoring.make_requests --spec FILE --assets DIR --out DIR`: write the request set of a benchmark.

Serves `requests: {kind: classes}` and `requests: {kind: prompts}`, whose prompts are assets
(`harness.scoring.prompt_files`). Other benchmarks bring a script with the same three arguments
(`requests: {kind: script, script: ...}`).
"""

from __future__ import annotations

import sys
from functools import partial

from harness.contract.errors import UserError
from harness.contract.requests import RequestSet, SamplingProtocol, class_requests
from harness.scoring.prompt_files import read_prompts
from harness.scoring.request_script import Spec, requests_for, run_request_script
from harness.scoring.scorer import Assets


def make_requests(spec: Spec, assets: Assets) -> RequestSet:
    """The request set that a specification asks for.

    Args:
        spec: see `harness.scoring.request_script`.
        assets: the folder with one folder per asset, for prompts.
    """
    wanted = dict(spec["requests"])
    kind = wanted.pop("kind", None)
    if kind not in ("classes", "prompts"):
        raise UserError(
            f"{spec['benchmark']}: requests.kind is {kind!r}; write 'classes', 'prompts', or 'script' with a script."
        )
    try:
        if kind == "prompts":
            repeats, layout = wanted.pop("repeats", 1), wanted.pop("layout")
            return requests_for(spec, read_prompts(assets, **wanted), layout=layout, repeats=repeats)
        protocol = SamplingProtocol(**spec["protocol"])
        return class_requests(spec["benchmark"], spec["version"], protocol, run_seed=spec["run_seed"], **wanted)
    except (TypeError, KeyError) as error:
        raise UserError(f"{spec['benchmark']}: {error}; correct requests or protocol in its benchmark.yaml.") from error


main = partial(run_request_script, make_requests)

if __name__ == "__main__":
    sys.exit(main())
