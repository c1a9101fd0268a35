"""How this gold check was made: `python -m benchmarks.demo_t2i.check.make`, in the project's own environment.

Twenty-two prompts and a picture for each, of digits that the check's classifier is fitted on. Every fourth picture is
tinted in another colour than its prompt names, every fourth shows another digit, one is blank and one is grey. The
right verdicts follow from that alone; the printed values, which `benchmark.yaml` expects, do not come from the scorer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo_t2i.request_set import ASSET, SEEN, UNSEEN, prompt_of
from gear.data.digits import COLOURS, DIGIT_NAMES, Digits, load_digits, tint, write_digits
from harness.contract.requests import SamplingProtocol, prompt_requests
from harness.contract.writer import SampleSetWriter

FOLDER = Path(__file__).parent
TRAIN, HELD_OUT = 300, 40
BLANK, GREY = 4, 8
"""Positions of the pictures without colour; without them they would be right."""
Array = Any


def main() -> None:
    for name in ("assets", "samples"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    about = write_asset(FOLDER / "assets" / ASSET)
    rows = [row for row in about["prompts"] if row["unseen"]][:8] + [
        row for row in about["prompts"] if not row["unseen"]
    ][::5][:16]
    train = load_digits("train")
    shown = [picture(number, row, train) for number, row in enumerate(rows)]
    requests = prompt_requests(
        "demo_t2i",
        1,
        SamplingProtocol(image_size=32),
        prompts=[prompt_of(row) for row in rows],
        layout="{index:05d}/samples/{repeat:05d}.png",
    )
    writer = SampleSetWriter(FOLDER / "samples", requests, {"name": "check/make.py"}, "png", len(rows))
    for shard in writer.missing():
        writer.write(shard, np.stack([image for image, _, _ in shown]))
    writer.finish()
    print(json.dumps(expected(rows, shown), indent=1))


def write_asset(folder: Path) -> dict[str, Any]:
    """A part of the demo's digits, with the same `digits.json`."""
    write_digits(folder)
    for split, count in (("train", TRAIN), ("held_out", HELD_OUT)):
        with np.load(folder / f"{split}.npz", allow_pickle=False) as whole:
            arrays = {name: whole[name][:count] for name in ("images_u8", "labels", "colour_ids")}
        np.savez_compressed(folder / f"{split}.npz", **arrays)
    about: dict[str, Any] = json.loads((folder / "digits.json").read_text())
    return about


def picture(number: int, row: dict[str, Any], train: Digits) -> tuple[Array, str | None, str | None]:
    """(image, digit it shows, colour it has) for a prompt."""
    digits, colours = list(DIGIT_NAMES), list(COLOURS)
    digit, colour = row["digit"], row["colour"]
    if number % 4 == 1:
        colour = colours[(colours.index(colour) + 3) % len(colours)]
    if number % 4 == 2:
        digit = digits[(digits.index(digit) + 3) % len(digits)]
    source = train.images_u8[:TRAIN][train.labels[:TRAIN] == digits.index(digit)][number % 5]
    ink = (255.0 - source.min(axis=-1)) / 255.0
    ink = ink / ink.max()
    if number == BLANK:
        return np.full_like(source, 255), None, None
    if number == GREY:
        return np.repeat(np.rint(255.0 * (1.0 - ink[..., None])), 3, axis=-1).astype(np.uint8), digit, None
    return tint(ink[None], np.array([colours.index(colour)]))[0], digit, colour


def expected(rows: list[dict[str, Any]], shown: list[tuple[Array, str | None, str | None]]) -> dict[str, float]:
    """The shares that follow from how the pictures were made. A picture without colour shows no digit either."""
    digit = np.array(
        [seen == row["digit"] and colour is not None for row, (_, seen, colour) in zip(rows, shown, strict=True)]
    )
    colour = np.array([seen == row["colour"] for row, (_, _, seen) in zip(rows, shown, strict=True)])
    tasks = [np.array([row["unseen"] == (tag == UNSEEN) for row in rows]) for tag in (UNSEEN, SEEN)]
    return {
        "demo_t2i": float(np.mean([(digit & colour)[task].mean() for task in tasks])),
        "digit_accuracy": float(digit.mean()),
        "colour_accuracy": float(colour.mean()),
        "correct_prompts": float((digit & colour).mean()),
    }


if __name__ == "__main__":
    main()
