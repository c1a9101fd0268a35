"""`request_set.py --spec FILE --assets DIR --out DIR`: one image per selected caption, in the order of selection."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.coco.dataset import CocoParquet, selection
from harness.contract.errors import UserError
from harness.contract.files import read_json
from harness.contract.requests import Prompt, Protocol, RequestSet, prompt_requests
from harness.contract.scorer import Assets

DATASET = "coco-val2017"


def make_requests(spec: Mapping[str, Any], assets: Assets) -> RequestSet:
    """The request set; image i goes to `<i:06d>.png`, and its item is the row of the data set."""
    wanted, captions = spec["requests"], CocoParquet(assets.path(DATASET)).captions()
    rows = selection(len(captions), wanted["num_samples"], wanted["selection_seed"])
    requests = prompt_requests(
        spec["benchmark"],
        spec["version"],
        Protocol(**spec["protocol"]),
        prompts=(Prompt(item=f"{row:06d}", text=captions[row], meta={"row": int(row)}) for row in rows),
        layout="{index:06d}.png",
        run_seed=spec["run_seed"],
    )
    return requests if spec["limit"] is None else requests.limit(spec["limit"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="request_set.py")
    for name in ("--spec", "--assets", "--out"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        make_requests(read_json(arguments.spec), Assets(arguments.assets)).write(arguments.out)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
