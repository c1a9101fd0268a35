"""`request_set.py --spec FILE --assets DIR --out DIR`: every digit in every colour, a few images of each.

The prompts are those of the asset `demo-digits`, which also says which pairs of digit and colour training leaves out.
They are a separate task: drawing such a pair takes separate knowledge of digit and colour. The fields beside the
prompt are GenEval's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contract.errors import MissingAsset, UserError
from harness.contract.files import read_json
from harness.contract.requests import Prompt, RequestSet
from harness.scoring.request_script import Spec, requests_for, run_request_script
from harness.scoring.scorer import Assets

ASSET = "demo-digits"
LAYOUT = "{index:05d}/samples/{repeat:05d}.png"
"""GenEval's."""
SEEN, UNSEEN = "seen pairs", "unseen pairs"
"""The tasks."""


def make_requests(spec: Spec, assets: Assets) -> RequestSet:
    """The request set: the prompts in the order of the asset, `repeats` images of each."""
    prompts = [prompt_of(row) for row in read_prompts(assets)]
    return requests_for(spec, prompts, layout=LAYOUT, repeats=spec["requests"]["repeats"])


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


if __name__ == "__main__":
    raise SystemExit(run_request_script(make_requests))
