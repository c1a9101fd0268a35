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
from harness.contract.shown import print_in_any_encoding


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, one of those in `harness.contract.errors`."""
    print_in_any_encoding()
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
    validate.add_argument("folder", type=Path, help="a request set, sample set or score record")
    validate.set_defaults(run=_validate)

    adopt = commands.add_parser("adopt", help="make a sample set from an NPZ or a folder of images")
    adopt.add_argument("source", type=Path, help="an .npz with arr_0 (N, H, W, 3) uint8, or a folder of images")
    adopt.add_argument("out", type=Path, help="the folder of the new sample set")
    adopt.add_argument("--requests", type=Path, metavar="DIR", help="the request set that the images were drawn for")
    known = adopt.add_mutually_exclusive_group()  # with a layout, the prompts determine the kind
    known.add_argument(
        "--layout", type=Path, metavar="FILE", help="how the folder is laid out (harness.contract.layouts)"
    )
    known.add_argument("--kind", choices=KINDS, help="what the images are; recorded for the scorers")
    adopt.add_argument("--form", choices=FORMS, help="[npz, with a layout png]")
    adopt.set_defaults(run=_adopt)

    to_form = commands.add_parser("convert", help="convert a sample set between NPZ and PNG; its digest stays")
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
            f"{folder}: has none of {MANIFEST_FILE}, {SCORE_FILE}, {HEAD_FILE}; give the folder of a sample set, "
            "score record or request set."
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
    if (source / MANIFEST_FILE).exists():  # adopting it would drop its requests, labels and kind
        raise UserError(
            f"{source}: is already a sample set; use it as it is or, if its manifest is wrong, adopt the "
            f"{NPZ_FILE} or the folder {IMAGES_DIR} inside it."
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
