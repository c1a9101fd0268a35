"""`request_set.py --spec FILE --assets DIR --out DIR`: one image per selected caption, in the order of selection."""

from __future__ import annotations

from functools import partial

from harness.contract.requests import Prompt, RequestSet
from harness.scoring.coco import CocoParquet, selection
from harness.scoring.request_script import Spec, requests_for, run_request_script
from harness.scoring.scorer import Assets

DATASET = "coco-val2017"


def make_requests(spec: Spec, assets: Assets) -> RequestSet:
    """The request set; image i goes to `<i:06d>.png`, and its item is the row of the data set."""
    wanted, captions = spec["requests"], CocoParquet(assets.path(DATASET)).captions()
    rows = selection(len(captions), wanted["num_samples"], wanted["selection_seed"])
    prompts = [Prompt(item=f"{row:06d}", text=captions[row], meta={"row": int(row)}) for row in rows]
    return requests_for(spec, prompts, layout="{index:06d}.png")


main = partial(run_request_script, make_requests)

if __name__ == "__main__":
    raise SystemExit(main())
