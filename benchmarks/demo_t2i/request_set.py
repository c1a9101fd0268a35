"""`request_set.py --spec FILE --assets DIR --out DIR`: every digit in every colour, a few images of each.

The prompts are those of the asset `demo-digits`, which also says which pairs of digit and colour training leaves out.
They are tasks of their own: drawing such a pair takes knowing the digit and the colour apart. The fields beside the
prompt are GenEval's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract.errors import MissingAsset, UserError
from harness.contract.files import read_json
from harness.contract.requests import Prompt, Protocol, RequestSet, prompt_requests
from harness.contract.scorer import Assets

ASSET = "demo-digits"
LAYOUT = "{index:05d}/samples/{repeat:05d}.png"
"""GenEval's."""
SEEN, UNSEEN = "seen pairs", "unseen pairs"
"""The tasks."""


def make_requests(spec: Mapping[str, Any], assets: Assets) -> RequestSet:
    """The request set: the prompts in the order of the asset, `repeats` images of each."""
    requests = prompt_requests(
        spec["benchmark"],
        spec["version"],
        Protocol(**spec["protocol"]),
        prompts=[prompt_of(row) for row in read_prompts(assets)],
        repeats=spec["requests"]["repeats"],
        layout=LAYOUT,
        run_seed=spec["run_seed"],
    )
    return requests if spec["limit"] is None else requests.limit(spec["limit"])


def read_prompts(assets: Assets) -> list[dict[str, Any]]:
    """Rows with digit, colour, prompt and unseen, of `digits.json`; MissingAsset when it has none."""
    path = assets.path(ASSET) / "digits.json"
    try:
        rows: list[dict[str, Any]] = read_json(path)["prompts"]
    except (UserError, KeyError) as error:
        raise MissingAsset(
            f"{path}: holds no prompts. Make the demo's digits again: gear data digits --out DIR   then give the "
            f"folder: --asset {ASSET}=DIR"
        ) from error
    return rows


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """One prompt with the fields of GenEval's metadata."""
    clause = {"class": row["digit"], "count": 1, "color": row["colour"]}
    return Prompt(
        item=f"{row['colour']}-{row['digit']}",
        text=row["prompt"],
        meta={"tag": UNSEEN if row["unseen"] else SEEN, "include": [clause], "prompt": row["prompt"]},
    )


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
