"""GPIC's 50,000 evaluation prompts, in the order of the reference statistics.

They have no file of their own: the statistics name a key and a tar per prompt, and the caption is in the member
`<key>.json` of that tar. Reading those members of 128 large tars takes minutes, so build the list once and keep it:

    python -m benchmarks.gpic.prompts --stats test_stats.npz --shards DIR --out gpic_eval_50k.jsonl
    harness assets import gpic-prompts gpic_eval_50k.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.contract.errors import MissingAsset, UserError
from harness.contract.files import write_json_lines
from harness.contract.npz import read_npz_array
from harness.contract.parse import decode_utf8, parse_json
from harness.contract.tar import tar_members
from harness.contract.walk import files_in, is_data

NUM_THREADS = 16
MAX_CAPTION_BYTES = 16 << 20
"""A larger caption file is refused, since it would be read into memory whole."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """One prompt: a line of the list."""

    key: str
    caption: str
    caption_type: str
    """"short", "medium", "long" or "tag"; "" where the tar does not state it."""


def build_prompts(stats: Path, shards: Path) -> tuple[list[Caption], list[str]]:
    """The captions in the order of the statistics' `key`, and the keys that are in no tar (they are left out).

    Args:
        stats: the reference statistics; `key` (N,) text and `tar_idx` (N,) int.
        shards: folder of `gpic_test_<tar_idx:05d>.tar`.
    Raises:
        MissingAsset: a file is not there or not what it should be.
    """
    keys = [str(key) for key in read_npz_array(stats, "key", error=MissingAsset)]
    tars = [int(index) for index in read_npz_array(stats, "tar_idx", error=MissingAsset)]
    wanted: dict[int, set[str]] = {}
    for key, tar in zip(keys, tars, strict=True):
        wanted.setdefault(tar, set()).add(key)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        parts = pool.map(lambda tar: read_captions(shards / f"gpic_test_{tar:05d}.tar", wanted[tar]), sorted(wanted))
        found = {caption.key: caption for part in parts for caption in part}
    return [found[key] for key in keys if key in found], [key for key in keys if key not in found]


def read_captions(tar: Path, wanted: Iterable[str]) -> list[Caption]:
    """The captions of the requested keys of one tar; no image is read."""
    names = {f"{key}.json": key for key in wanted}
    captions = []
    try:
        with tar.open("rb") as stream:
            for member in tar_members(stream):
                key = names.get(Path(member.name).name)
                if key and member.isfile() and is_data(member.name):
                    if member.size > MAX_CAPTION_BYTES:
                        raise ValueError(f"{member.name} has {member.size:,} bytes")
                    stream.seek(member.offset_data)
                    captions.append(_caption(key, parse_json(stream.read(member.size), strict=False)))
    except (OSError, ValueError, AttributeError) as error:
        raise MissingAsset(
            f"{tar}: cannot be read ({error}); give the folder with GPIC's test tars: --asset gpic-prompts=DIR"
        ) from error
    return captions


def read_prompts(folder: Path, stats: Path) -> list[Caption]:
    """The prompts from the asset `gpic-prompts`: the list built before, or a folder with the tars."""
    lists = files_in(folder, ".jsonl", error=MissingAsset)
    if len(lists) != 1:
        captions, missing = build_prompts(stats, folder)
        if missing:
            print(f"{len(missing)} keys are in no tar and are left out, such as {missing[0]}.", file=sys.stderr)
        return captions
    try:
        lines = decode_utf8(lists[0].read_bytes()).split("\n")
        rows = [parse_json(line, strict=False) for line in lines if line.strip()]
        return [_caption(row["key"], row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise MissingAsset(f"{lists[0]}: is not a list of prompts ({error}); build it again: {__doc__}") from error


def _caption(key: str, row: Mapping[str, object]) -> Caption:
    return Caption(key=key, caption=str(row.get("caption") or ""), caption_type=str(row.get("caption_type") or ""))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpic.prompts", description=__doc__.split("\n\n")[0])
    parser.add_argument("--stats", type=Path, required=True, metavar="FILE", help="test_stats.npz")
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR", help="gpic_test_00000.tar, ...")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="JSON lines: key, caption, caption_type"
    )
    arguments = parser.parse_args(argv)
    try:
        captions, missing = build_prompts(arguments.stats, arguments.shards)
        write_json_lines(arguments.out, map(asdict, captions))
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    for key in missing:
        print(f"{key} is in no tar and is left out.", file=sys.stderr)
    print(f"{len(captions)} prompts in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
