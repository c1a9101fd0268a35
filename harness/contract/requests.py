"""The request set: what to draw. One line per image, in order, each with the seed that belongs to it.

On disk: `requests.json` (the head) and `requests.jsonl` (one request per line). The package docstring lists the fields.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.contract.digest import canonical_json
from harness.contract.errors import UserError
from harness.contract.fields import Digest, Text, Within, build, field_types
from harness.contract.files import (
    PathLike,
    finite,
    read_head,
    read_json_lines,
    relative_path_problem,
    write_json,
    write_json_lines,
)

FORMAT = "request-set"
SCHEMA_VERSION = 1
HEAD_FILE = "requests.json"
LINES_FILE = "requests.jsonl"
NUM_SEEDS = 2**64
NUM_LABELS = 2**31
MAX_IMAGE_SIZE = 16_384


@dataclass(frozen=True, kw_only=True)
class SamplingProtocol:
    """How a benchmark wants its images drawn. A generator follows every field, or refuses.

    The one list of these fields: files, tables and command lines take names, defaults and help from here.
    """

    image_size: int = field(metadata={"help": "Side of the square images, in pixels."})
    cfg_scale: float = field(default=1.0, metadata={"help": "Classifier-free guidance; 1 is none."})
    cfg_interval: float = field(
        default=-1.0,
        metadata={"help": "Guide only the tokens up to this position; -1 guides all."},
    )
    temperature: float = field(default=1.0, metadata={"help": "The logits are divided by it."})
    top_k: int = field(default=0, metadata={"help": "Keep the k likeliest tokens; 0 keeps all."})
    top_p: float = field(
        default=1.0, metadata={"help": "Keep the smallest set of tokens with at least this probability; 1 keeps all."}
    )

    def __post_init__(self) -> None:
        for name, kind in field_types(SamplingProtocol).items():
            # 1 and 1.0 are the same protocol and must have the same digest.
            read = _whole_number if kind is int else _finite_number
            object.__setattr__(self, name, read(name, getattr(self, name)))
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise UserError(f"protocol: image_size {self.image_size} is not within 1..{MAX_IMAGE_SIZE}.")
        if self.temperature <= 0:
            raise UserError(
                f"protocol: temperature {self.temperature} is not above 0; for greedy sampling set top_k 1."
            )
        if self.top_k < 0:
            raise UserError(f"protocol: top_k {self.top_k} is negative; 0 keeps all tokens.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"protocol: top_p {self.top_p} is not within (0, 1]; 1 keeps all tokens.")
        if self.cfg_scale < 0:
            raise UserError(f"protocol: cfg_scale {self.cfg_scale} is negative; 1 is no guidance.")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to draw, from a class label or from a prompt."""

    id: str
    """Unique within the set, e.g. "geneval/00012/2"."""
    seed: int
    """In [0, 2**64); belongs to the image, so it does not depend on ranks, batches or limits."""
    path: str
    """Where the image goes in the PNG form: relative, "/" between folders, ends in .png."""
    label: int | None = None
    """Class of a class-conditional request."""
    prompt: str | None = None
    """Text of a text-conditional request; may be empty, which asks for an image of anything."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the scorer needs to know about this image, as JSON values."""

    def to_row(self) -> dict[str, Any]:
        """The request as one line of `requests.jsonl`; the absent one of label and prompt is left out."""
        condition = {"label": self.label} if self.prompt is None else {"prompt": self.prompt}
        return {"id": self.id, **condition, "seed": self.seed, "path": self.path, "meta": dict(self.meta)}


@dataclass(frozen=True, kw_only=True)
class _Head:
    """The contents of `requests.json`, after format and schema_version."""

    benchmark: Text
    version: Annotated[int, Within(0)]
    protocol: SamplingProtocol
    count: Annotated[int, Within(1)]
    digest: Digest


class RequestSet:
    """What a benchmark asks a generator to draw: a protocol, and requests in order.

    Args:
        benchmark: its id, e.g. "adm".
        version: its version; a higher one means that numbers are not comparable with older ones.
        protocol: how to draw.
        requests: what to draw.
    Raises:
        UserError: the requests contradict each other: repeated ids or paths, labels mixed with prompts, no requests.
    """

    def __init__(
        self, *, benchmark: str, version: int, protocol: SamplingProtocol, requests: Iterable[Request]
    ) -> None:
        self.benchmark = benchmark
        self.version = version
        self.protocol = protocol
        self.requests: Sequence[Request] = tuple(requests)
        _check(self.requests, f"request set {benchmark!r}")

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def __getitem__(self, index: int) -> Request:
        return self.requests[index]

    @property
    def is_class_conditional(self) -> bool:
        """True when the requests carry labels, False when they carry prompts."""
        return self.requests[0].label is not None

    @property
    def labels(self) -> list[int] | None:
        """The labels in order; None for a text-conditional set."""
        return [request.label for request in self.requests if request.label is not None] or None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides what is drawn: benchmark, version, protocol and each request."""
        state = hashlib.sha256(canonical_json([self.benchmark, self.version, asdict(self.protocol)]).encode() + b"\n")
        for request in self.requests:
            try:
                state.update(canonical_json(request.to_row()).encode() + b"\n")
            except (ValueError, TypeError, RecursionError) as reason:  # half of a surrogate pair, NaN, another type
                raise UserError(
                    f"request set {self.benchmark!r}: {request.id!r} cannot be written as JSON in UTF-8 ({reason}); "
                    "correct its prompt or meta."
                ) from reason
        return state.hexdigest()

    def limit(self, count: int) -> RequestSet:
        """The first `count` requests, seeds unchanged: a cheap look at a benchmark, with a digest of its own."""
        if count < 1:
            raise UserError(f"a limit of {count} leaves nothing to draw; give at least 1.")
        kept = self.requests[:count]
        return RequestSet(benchmark=self.benchmark, version=self.version, protocol=self.protocol, requests=kept)

    def with_protocol(self, **changes: Any) -> RequestSet:
        """The same requests under a changed protocol, e.g. `with_protocol(cfg_scale=2.0)`."""
        protocol = replace(self.protocol, **changes)
        return RequestSet(benchmark=self.benchmark, version=self.version, protocol=protocol, requests=self.requests)

    def write(self, folder: PathLike) -> None:
        """Write both files into `folder`; the head is written last, so a head implies a complete list.

        Raises:
            UserError: a prompt or meta cannot be written: half of a surrogate pair, NaN, a value that is not JSON.
        """
        folder, digest = Path(folder), self.digest
        write_json_lines(folder / LINES_FILE, (request.to_row() for request in self.requests))
        head = _Head(
            benchmark=self.benchmark,
            version=self.version,
            protocol=self.protocol,
            count=len(self),
            digest=digest,
        )
        write_json(folder / HEAD_FILE, {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(head)})

    @classmethod
    def read(cls, folder: PathLike, *, error: type[UserError] = UserError) -> RequestSet:
        """Read and validate everything: fields, ranges, uniqueness, count and digest.

        Raises:
            UserError: (or `error`) naming the file and line, and what to do.
        """
        head_path, lines_path = Path(folder) / HEAD_FILE, Path(folder) / LINES_FILE
        if not head_path.is_file():
            raise error(f"{head_path}: is missing, so this is not a request set; give the folder that holds it.")
        head = build(_Head, read_head(head_path, FORMAT, SCHEMA_VERSION, error=error), str(head_path), error=error)
        requests = [
            _read_request(row, f"{lines_path}, line {number}", error)
            for number, row in read_json_lines(lines_path, error=error)
        ]
        if len(requests) != head.count:
            raise error(
                f"{lines_path}: holds {len(requests)} requests where {head_path.name} says {head.count}; "
                "copy the whole folder again, or write the request set again."
            )
        try:
            request_set = cls(benchmark=head.benchmark, version=head.version, protocol=head.protocol, requests=requests)
        except UserError as reason:
            raise error(f"{lines_path}: {reason}") from reason
        if request_set.digest != head.digest:
            raise error(
                f"{lines_path}: does not have the digest in {head_path.name} (one of the two was edited); "
                "write the request set again with RequestSet.write."
            )
        return request_set


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, str) or not _finite_number(name, value).is_integer():
        raise UserError(f"protocol: {name} is {value!r}, which is not a whole number.")
    return int(value)


def _finite_number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"protocol: {name} is {value!r}, which is not a finite number.")
    return number


def _read_request(row: Mapping[str, Any], where: str, error: type[UserError]) -> Request:
    request = build(Request, row, where, error=error)
    problem = _request_problem(request)
    if problem:
        raise error(f"{where}: {problem}")
    return request


def _request_problem(request: Request) -> str | None:
    if not request.id or not request.id.isprintable():
        return f"the id {request.id!r} is empty or has unprintable characters."
    if not 0 <= request.seed < NUM_SEEDS:
        return f"the seed {request.seed} is not within 0..2**64-1."
    if (request.label is None) == (request.prompt is None):
        return "give exactly one of 'label' and 'prompt'."
    if request.label is not None and not 0 <= request.label < NUM_LABELS:
        return f"the label {request.label} is not within 0..2**31-1."
    problem = relative_path_problem(request.path)
    if problem:
        return f"the path {request.path!r} {problem}."
    if not request.path.endswith(".png") or request.path.endswith("/.png"):
        return f"the path {request.path!r} does not end in a name with .png."
    return None


def _check(requests: Sequence[Request], where: str) -> None:
    """Check each request, and all of them together."""
    if not requests:
        raise UserError(f"{where}: has no requests; a set has at least one.")
    ids: set[str] = set()
    paths: dict[str, str] = {}
    by_label = requests[0].label is not None
    for request in requests:
        problem = _request_problem(request)
        if problem:
            raise UserError(f"{where}, request {request.id!r}: {problem}")
        if request.id in ids:
            raise UserError(f"{where}: the id {request.id!r} occurs twice; make the ids unique.")
        # Some file systems do not tell A.png from a.png.
        other = paths.setdefault(request.path.casefold(), request.id)
        if other != request.id:
            raise UserError(
                f"{where}: the path {request.path!r} of {request.id!r} is also that of {other!r}; make paths unique."
            )
        if (request.label is not None) != by_label:
            raise UserError(f"{where}: {request.id!r} mixes labels with prompts; split them into two sets.")
        ids.add(request.id)
    for request in requests:
        for parent in _parents(request.path.casefold()):
            if parent in paths:
                raise UserError(f"{where}: the path {request.path!r} lies inside {parent!r}, which is itself an image.")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


# --- building request sets -------------------------------------------------------------------------------------------


def image_seed(run_seed: int, benchmark: str, item: str, repeat: int = 0) -> int:
    """The seed of one image, in [0, 2**64): a pure function of its arguments, by SHA-256.

    Args:
        run_seed: the one number a user may change to draw other images.
        benchmark: its id.
        item: which prompt or which index.
        repeat: which image of that item.
    """
    text = canonical_json([run_seed, benchmark, item, repeat])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def class_requests(
    benchmark: str,
    version: int,
    protocol: SamplingProtocol,
    *,
    count: int,
    num_classes: int,
    labels: Literal["random", "balanced"] = "random",
    run_seed: int = 0,
) -> RequestSet:
    """A class-conditional request set, one image per request, at `000000.png`, `000001.png`, ...

    Args:
        count: how many images.
        num_classes: labels are 0..num_classes-1.
        labels: "random" draws each label independently and uniformly, from the run seed and the index; "balanced" takes
            the classes in turn, so the first n images are spread over the classes as evenly as possible.
        run_seed: decides seeds and random labels.
    """
    if count < 1 or num_classes < 1:
        raise UserError(f"{benchmark}: count {count} and num_classes {num_classes} must be at least 1.")
    if labels not in ("random", "balanced"):
        raise UserError(f"{benchmark}: labels is {labels!r}; give 'random' or 'balanced'.")

    def label(index: int) -> int:
        # A separate random stream: the label must not be a function of the seed that drives the sampling.
        return (
            image_seed(run_seed, f"{benchmark}#label", str(index)) % num_classes
            if labels == "random"
            else (index % num_classes)
        )

    requests = (
        Request(
            id=f"{benchmark}/{index:06d}",
            label=label(index),
            seed=image_seed(run_seed, benchmark, str(index)),
            path=f"{index:06d}.png",
        )
        for index in range(count)
    )
    return RequestSet(benchmark=benchmark, version=version, protocol=protocol, requests=requests)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt of a text-to-image benchmark."""

    item: str
    """Its name within the benchmark, e.g. "00012"; ids, seeds and paths derive from it."""
    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the scorer needs to know about it."""


def prompt_item(request: Request) -> str:
    """The prompt that a request of `prompt_requests` is for: `Prompt.item`, out of the id."""
    return request.id.partition("/")[2].rpartition("/")[0]


def prompt_requests(
    benchmark: str,
    version: int,
    protocol: SamplingProtocol,
    *,
    prompts: Iterable[Prompt],
    repeats: int = 1,
    layout: str = "{item}/{repeat:04d}.png",
    run_seed: int = 0,
) -> RequestSet:
    """A text-conditional request set: each prompt `repeats` times, repeats of a prompt in a row.

    Args:
        prompts: in the order of the benchmark.
        repeats: images per prompt.
        layout: the path of an image, by `str.format` from item (text), index (of the prompt, from 0) and repeat
            (from 0), e.g. GenEval's "{index:05d}/samples/{repeat:05d}.png".
        run_seed: decides the seeds.
    """
    if repeats < 1:
        raise UserError(f"{benchmark}: repeats {repeats} must be at least 1.")

    def path(prompt: Prompt, index: int, repeat: int) -> str:
        try:
            return layout.format(item=prompt.item, index=index, repeat=repeat)
        except (KeyError, IndexError, ValueError, AttributeError) as reason:
            raise UserError(
                f"{benchmark}: the layout {layout!r} cannot be filled in ({reason}); "
                "use {item}, {index} and {repeat}."
            ) from reason

    requests = (
        Request(
            id=f"{benchmark}/{prompt.item}/{repeat}",
            prompt=prompt.text,
            seed=image_seed(run_seed, benchmark, prompt.item, repeat),
            path=path(prompt, index, repeat),
            meta=finite(prompt.meta),
        )
        for index, prompt in enumerate(prompts)
        for repeat in range(repeats)
    )
    return RequestSet(benchmark=benchmark, version=version, protocol=protocol, requests=requests)
