r"""The contract: the three file formats that benchmarks, generators and scorers exchange.

Any program that reads and writes these files can take part, in any language. This package is one implementation: it
needs Python >= 3.10, NumPy and Pillow, so that it runs inside the oldest scorer's environment.

All files are UTF-8. JSON is strict: no NaN, no comments, no repeated key. Every head file opens with `format` and
`schema_version`; a reader refuses a version it does not know and fields it does not know. A head file is written last
and atomically, so that where it exists, everything it refers to exists too. Digests are SHA-256 in lower-case
hexadecimal. Paths are relative, with "/" between parts, and stay inside their folder.


Request set: what to draw
-------------------------
requests.json
    format              "request-set"
    schema_version      1
    benchmark           id of the benchmark, e.g. "adm"
    version             its version; numbers of different versions are not comparable
    protocol            object: how to draw, the fields of `SamplingProtocol` (harness.contract.requests), such as
                        image_size, the side of the square images in pixels
    count               number of lines in requests.jsonl
    digest              SHA-256 over the canonical JSON (sorted keys, no spaces) of [benchmark, version, protocol], then
                        of each line, each followed by a newline
requests.jsonl, one line per image, in order
    id                  unique, printable, e.g. "geneval/00012/2"
    label | prompt      exactly one, the same kind throughout: class number in 0..2**31-1, or text
    seed                0 <= seed < 2**64, a function of (run seed, benchmark, item, repeat) alone
    path                where the image goes in the PNG form; unique (also when case is ignored), ends in .png
    meta                object: what the scorer needs to know about the image


Sample set: what was drawn
--------------------------
samples.json
    format              "sample-set"
    schema_version      1
    form                "npz" or "png"
    count, image_size   number of images; their side in pixels
    digest              SHA-256 over the pixel hashes in order, each followed by a newline; the same for both forms
    index_sha256        SHA-256 of index.jsonl
    request_digest      `digest` of the request set drawn for, or null; if not null, requests.json and requests.jsonl
                        lie beside samples.json
    generator           object: the generator, with every option that changes a pixel; its `kind`, where it is known,
                        "generated" or "reconstructions" (of a tokenizer)
index.jsonl, one line per image, in request order, the same bytes for both forms
    id, path            as requested
    sha256              SHA-256 over "<height>x<width>x3\n" followed by the pixels, row by row, RGB
    label               class number, where there are labels
samples.npz             form "npz": arr_0 uint8 (count, size, size, 3), not compressed; labels int64 (count,) where
                        there are labels
images/<path>           form "png": 8-bit RGB PNG without transparency
work/                   while unfinished: work.json (owner, settings) and shard-<number>.npz, each with its arr_0


Score record: the result
------------------------
score.json
    format              "score-record"
    schema_version      1
    benchmark, benchmark_version
    metrics             array of: name, label (how to print it, or null), value (or null: not a finite number, a note
                        says why), unit, higher_is_better, n (items that went in), category (or null), interval
                        ([low, high] at 95 %, or null)
    digests             object of digests: "samples", "requests", and whatever else went in
    environment         object: python, platform, library versions, device ("cpu" or the GPU's name), image or lock
                        digest
    timings_s           object: seconds by stage, "total" among them
    unscored            array of: id, reason_class (one word to count by), reason (a sentence)
    options             object: the options in force
    protocol            object: how the samples were drawn, as in requests.json; {} or absent where nothing says it
    images              object: "samples", "reference" -> "50,000 of 256 x 256 px", where number and size move the
                        metrics; {} or absent otherwise
    notes               array of sentences a reader of the number must know
    items               object: count and sha256 of items.jsonl
items.jsonl             one object per image or question; the metrics can be computed again from it alone


Commands
--------
    generate --requests DIR --out DIR
    score --samples DIR --assets DIR --out DIR [--options FILE]

Both report progress on stderr as lines {"event": "progress", "what", "done", "total", "elapsed_s", "eta_s"}. The asset
folder has one folder per asset. Exit codes: see `harness.contract.errors`. Your own files:

    python -m harness.contract validate DIR
    python -m harness.contract adopt FILE.npz|FOLDER OUT [--requests DIR] [--form npz|png]
                                     [--kind generated|reconstructions]
    python -m harness.contract convert DIR OUT --form npz|png
"""

import importlib

_NAMES = {
    "adopt": "convert sample_set_from_folder sample_set_from_npz",
    "digest": "digest_json digest_pixels digest_sequence sha256_file",
    "errors": "EXIT_DEFECT EXIT_OK EXIT_PARTLY_SCORED BadSamples EnvironmentFailure MissingAsset UserError",
    "files": "read_json safe_join write_atomically write_json",
    "npz": "NpzMember NpzStreamWriter npz_names open_npz_member read_npz_array",
    "progress": "Progress ProgressLine parse_line",
    "record": "Metric ScoreRecord Unscored read_items",
    "requests": "Prompt Request RequestSet SamplingProtocol class_requests image_seed prompt_requests",
    "samples": "SampleSet",
    "writer": "SampleSetWriter Shard",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name):
    """Import a part when a name of it is first used: an error class needs no NumPy. `__init__.pyi` has the types."""
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.contract' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.contract.{_HOMES[name]}"), name)


def __dir__():
    return __all__
