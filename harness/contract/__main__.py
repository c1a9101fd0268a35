"""Check, adopt and convert the files of the contract by hand: `python -m harness.contract --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.contract.adopt import adopted, convert, sample_set_from_folder, sample_set_from_npz
from harness.contract.errors import EXIT_OK, UserError
from harness.contract.layouts import read_layout, sample_set_from_layout
from harness.contract.record import SCORE_FILE, ScoreRecord
from harness.contract.requests import HEAD_FILE, RequestSet
from harness.contract.samples import FORMS, IMAGES_DIR, KINDS, MANIFEST_FILE, NPZ_FILE, SampleSet


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, one of those in `harness.contract.errors`."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.contract", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    validate = commands.add_parser("validate", help="read everything in a folder and say what is wrong with it")
    validate.add_argument("folder", type=Path, help="of a request set, a sample set or a score record")
    validate.set_defaults(run=_validate)

    adopt = commands.add_parser("adopt", help="make a sample set of an NPZ or of a folder of images")
    adopt.add_argument("source", type=Path, help="an .npz with arr_0 (N, H, W, 3) uint8, or a folder of images")
    adopt.add_argument("out", type=Path, help="the folder of the sample set to be")
    adopt.add_argument("--requests", type=Path, metavar="DIR", help="the request set that the images answer")
    known = adopt.add_mutually_exclusive_group()  # what a layout's folder holds, its prompts say
    known.add_argument(
        "--layout", type=Path, metavar="FILE", help="how the folder is laid out (harness.contract.layouts)"
    )
    known.add_argument("--kind", choices=KINDS, help="what the images are: recorded, and scorers go by it")
    adopt.add_argument("--form", choices=FORMS, help="[npz, with a layout png]")
    adopt.set_defaults(run=_adopt)

    to_form = commands.add_parser("convert", help="turn a sample set from NPZ into PNG or back; the digest stays")
    to_form.add_argument("source", type=Path, help="a sample set")
    to_form.add_argument("out", type=Path, help="the folder of the new sample set")
    to_form.add_argument("--form", choices=FORMS, required=True)
    to_form.set_defaults(run=lambda arguments: _describe(convert(arguments.source, arguments.out, arguments.form)))
    return parser


def _validate(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    found = [name for name in (MANIFEST_FILE, SCORE_FILE, HEAD_FILE) if (folder / name).exists()]
    if not found:
        raise UserError(
            f"{folder}: has none of {MANIFEST_FILE}, {SCORE_FILE}, {HEAD_FILE}; give a folder of the contract."
        )
    if MANIFEST_FILE in found:
        samples = SampleSet.open(folder)
        samples.validate()
        _describe(samples)
    elif HEAD_FILE in found:
        requests = RequestSet.read(folder)
        print(f"{folder}: request set of {requests.benchmark}, {len(requests)} images, digest {requests.digest}")
    if SCORE_FILE in found:
        record = ScoreRecord.read(folder)
        print(f"{folder}: score record of {record.benchmark}, {len(record.metrics)} metrics")


def _adopt(arguments: argparse.Namespace) -> None:
    requests = RequestSet.read(arguments.requests) if arguments.requests else None
    source, out, form = arguments.source, arguments.out, arguments.form
    if arguments.layout:
        layout, suite = read_layout(arguments.layout)
        _describe(sample_set_from_layout(source, out, layout, suite=suite, requests=requests, form=form or "png"))
        return
    if (source / MANIFEST_FILE).exists():  # copied, it would lose its requests, its labels, and what it says it is
        raise UserError(
            f"{source}: is a sample set already; use it as it is, or where its record is wrong, adopt the "
            f"{NPZ_FILE} or the folder {IMAGES_DIR} that is in it."
        )
    generator = adopted(source, arguments.kind)
    take_in = sample_set_from_folder if source.is_dir() else sample_set_from_npz
    _describe(take_in(source, out, form=form or "npz", requests=requests, generator=generator))


def _describe(samples: SampleSet) -> None:
    print(
        f"{samples.folder}: sample set as {samples.form}, {len(samples)} images of {samples.image_size} px, "
        f"digest {samples.digest}"
    )


if __name__ == "__main__":
    sys.exit(main())
