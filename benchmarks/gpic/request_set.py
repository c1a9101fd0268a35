"""`request_set.py --spec FILE --assets DIR --out DIR`: one image per GPIC prompt, in the order of the statistics."""

from __future__ import annotations

from functools import partial

from benchmarks.gpic.prompts import read_prompts
from harness.contract.requests import Prompt, RequestSet
from harness.scoring.request_script import Spec, requests_for, run_request_script
from harness.scoring.scorer import Assets

PROMPTS = "gpic-prompts"
REFERENCE = "gpic-reference"


def make_requests(spec: Spec, assets: Assets) -> RequestSet:
    """The request set; image i goes to `<i:06d>.png`."""
    prompts = [
        Prompt(item=caption.key, text=caption.caption, meta={"caption_type": caption.caption_type})
        for caption in read_prompts(assets.path(PROMPTS), assets.file(REFERENCE))
    ]
    return requests_for(spec, prompts, layout="{index:06d}.png")


main = partial(run_request_script, make_requests)

if __name__ == "__main__":
    raise SystemExit(main())
