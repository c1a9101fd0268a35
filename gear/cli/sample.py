"""`gear sample`: the generator that the harness calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from gear import __version__
from gear.cli.base import EXISTING, FOLDER, Command, torch_device
from harness.contract.errors import EXIT_OK, EXPLAINED_STATUSES, UserError, describe_statuses
from harness.contract.fields import field_types
from harness.contract.requests import SamplingProtocol

if TYPE_CHECKING:
    import torch

    from gear.ar.model import ClassConditionalAR
    from gear.ar.t2i import TextToImageAR
    from gear.sampling.parity import Parity
    from gear.text import TextEncoder
    from gear.weights import ModelFile
    from harness.contract.requests import RequestSet
    from harness.contract.samples import SampleSet

T = TypeVar("T", "Models", "Wanted")
_ALONE = "Without --requests"


def protocol_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option per field of `SamplingProtocol`, with its name, type, default and help.

    A field without a default (the image size) is None where the option is not given.
    """
    for entry in reversed(fields(SamplingProtocol)):
        has_default = entry.default is not MISSING
        add = click.option(
            f"--{entry.name.replace('_', '-')}",
            type=field_types(SamplingProtocol)[entry.name],
            default=entry.default if has_default else None,
            show_default=True if has_default else "as the models draw",
            help=f"{_ALONE}. {entry.metadata['help']}",
        )
        command = add(command)
    return command


@click.command(cls=Command, epilog=describe_statuses(EXIT_OK, *EXPLAINED_STATUSES))
@click.argument("kind", type=click.Choice(["c2i", "t2i"]), required=False)
@click.option("--ckpt", required=True, metavar="FILE|DIR|HUB", help="Model with the AR model.")
@click.option("--vq-ckpt", metavar="FILE|DIR|HUB", help="Model with the tokenizer; default: --ckpt.")
@click.option("--text-encoder", type=EXISTING, metavar="DIR", help="t2i: the text encoder's weights, if they moved.")
@click.option("--requests", "requests_dir", type=EXISTING, help="Request set: what to draw, with seeds and protocol.")
@click.option("--out", "out_dir", type=FOLDER, required=True, help="Sample set; continued when it is unfinished.")
@click.option("--form", type=click.Choice(["npz", "png"]), default="npz", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N requests.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images at once; affects memory, not pixels.  [default: 64]"
)
@click.option("--tile", type=int, help="Images computed together; may change last bits.  [default: CPU 8, GPU 32]")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Precision of the AR model."
)
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True, help="GPU: fuse kernels.")
@click.option("--processes", type=click.IntRange(min=1), help="Parallel processes.  [default: one per visible GPU]")
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--trained-size", type=int, help="Image size of the AR model, if its file does not record it.")
@click.option("--rounding", type=click.Choice(["truncate", "nearest"]), default="truncate", show_default=True)
@click.option("--parity", is_flag=True, help="The reference's random streams, not one per image; see below.")
@click.option(
    "--parity-ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of the run to repeat."
)
@click.option("--count", type=click.IntRange(min=1), help=f"{_ALONE}, c2i: number of images, labelled by --labels.")
@click.option("--per-class", type=click.IntRange(min=1), help=f"{_ALONE}, c2i: images of each class.")
@click.option(
    "--labels",
    type=click.Choice(["random", "balanced"]),
    default="random",
    show_default=True,
    help=f"{_ALONE}, c2i: labels of the --count images.",
)
@click.option("--prompt", "prompts", multiple=True, help=f"{_ALONE}, t2i: a prompt; may be repeated.")
@click.option(
    "--prompts", "prompts_file", type=EXISTING, help=f"{_ALONE}, t2i: a prompt per line; .jsonl, .json, .csv."
)
@click.option("--repeats", default=1, show_default=True, help=f"{_ALONE}, t2i: images per prompt.")
@click.option("--seed", default=0, show_default=True, help=f"{_ALONE}, or with --parity: run seed.")
@protocol_options
def sample(
    kind: str | None,
    out_dir: Path,
    device: str,
    processes: int | None,
    batch_size: int | None,
    parity: bool,
    parity_ranks: int,
    **options: Any,
) -> None:
    """Draw a sample set from a request set, classes or prompts.

    KIND (c2i, t2i) may be left out.

    \b
      gear sample --ckpt exps/demo/ar --requests REQUESTS --out SAMPLES
      gear sample c2i --ckpt exps/demo/ar --per-class 8 --cfg-scale 2 --form png --out SAMPLES
      gear sample t2i --ckpt exps/t2i --prompt "a red seven" --repeats 4 --cfg-scale 4 --out SAMPLES
      torchrun --nproc-per-node 8 -m gear sample --ckpt exps/ar --requests REQUESTS --out SAMPLES

    Every image has its own random stream, from its seed in the request set. On one type of device neither its tokens
    nor its pixels depend on the batch size, the number of processes or threads, the order, --limit, or interruptions:
    everything is computed in tiles of a fixed size (--tile), the last one filled up. CPU and GPU, different GPUs, and
    bf16 and fp32, round differently, which can change a token; device, --tile and --dtype are recorded with the
    samples.

    Several processes share the work through the output folder: if one is slow or dies, the others draw its share. To
    resume, run the same command again. Prompts longer than the text encoder's slots are cut, and a warning counts them.

    --parity draws labels and tokens as the reference does, from streams per process (seeded --seed + rank), so that
    --batch-size (of one process; 32 as published) and --parity-ranks decide every image. A single process goes through
    the streams of all of them, and an unfinished run repeats all iterations.

    Finished shards are kept whatever the exit status.
    """
    _refuse_ignored(click.get_current_context())
    if _start_processes(processes, device, out_dir):
        return
    from gear.sampling.engine import Speed
    from gear.sampling.parity import Parity
    from gear.sampling.shards import SamplingProcess

    options["protocol"] = {entry.name: options.pop(entry.name) for entry in fields(SamplingProtocol)}
    models, wanted = _of(Models, options), _of(Wanted, options)
    speed = Speed(tile=options.pop("tile"), dtype=_dtype(options.pop("dtype")), compiled=options.pop("compiled"))
    repeated = Parity(seed=wanted.seed, num_ranks=parity_ranks, batch=batch_size or 32) if parity else None
    samples = _draw(
        kind,
        models,
        wanted,
        torch_device(_local(device)),
        out_dir=out_dir,
        batch_size=batch_size or 64,
        speed=speed,
        process=SamplingProcess.from_environment(),
        parity=repeated,
        **options,
    )
    if samples is not None:
        click.echo(f"{len(samples)} images in {out_dir}, digest {samples.digest}")


@dataclass(frozen=True, kw_only=True)
class Models:
    """The options that choose the models."""

    ckpt: str
    vq_ckpt: str | None
    text_encoder: Path | None
    ema: bool
    trained_size: int | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The options that choose what to draw: a request set, or classes or prompts instead of one."""

    requests_dir: Path | None
    limit: int | None
    count: int | None
    per_class: int | None
    labels: Literal["random", "balanced"]
    prompts: tuple[str, ...]
    prompts_file: Path | None
    repeats: int
    seed: int
    protocol: Mapping[str, Any]
    """Fields of `SamplingProtocol`; an image size of None is the one that the models draw."""


def _of(kind: type[T], options: dict[str, Any]) -> T:
    """A `Models` or `Wanted` of the options that are its fields; these are removed from `options`."""
    return kind(**{name: options.pop(name) for name in kind.__annotations__})


def _refuse_ignored(ctx: click.Context) -> None:
    """Refuse options that would be ignored: whoever gives one expects something else."""
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    alone = {str(option.name) for option in ctx.command.params if str(getattr(option, "help", "")).startswith(_ALONE)}
    if ctx.params["parity"]:
        alone.discard("seed")
    if "requests_dir" in given and (ignored := sorted(given & alone)):
        name = ignored[0].replace("_", "-")
        raise UserError(f"the request set already decides --{name}; leave out --{name} or --requests.")
    if {"count", "per_class"} <= given:
        raise UserError("--count and --per-class both say how many images; give one of them.")
    processes = max(ctx.params["processes"] or 1, int(os.environ.get("WORLD_SIZE", "1")))
    if ctx.params["parity"] and processes > 1:
        raise UserError("--parity runs in one process, which goes through the streams of all --parity-ranks.")


def _start_processes(count: int | None, device: str, out_dir: Path) -> bool:
    """Start several if there are several GPUs or the user asks for it; False in a process that was started so."""
    if "WORLD_SIZE" in os.environ or click.get_current_context().params["parity"]:
        return False
    if count is None and device in ("auto", "cuda"):
        import torch

        count = torch.cuda.device_count()
    if count is None or count < 2:
        return False
    from gear.sampling.processes import run_processes
    from harness.contract.samples import MANIFEST_FILE

    run_processes(count, (out_dir / MANIFEST_FILE).exists)
    return True


def _local(device: str) -> str:
    """The GPU of this process, where there are several."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return device


def _dtype(name: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def _draw(
    kind: str | None, models: Models, wanted: Wanted, device: torch.device, *, parity: Parity | None, **how: Any
) -> SampleSet | None:
    """Load, check that everything fits, draw. how: further arguments of `gear.sampling.generate`."""
    from gear.ar.checkpoints import is_text_to_image
    from gear.sampling.generate import generate
    from gear.weights import check_own_codes, check_pair, open_model

    model = open_model(models.ckpt)
    source = open_model(models.vq_ckpt) if models.vq_ckpt else model
    ar = model.ar(ema=models.ema, image_size=models.trained_size).to(device)
    tokenizer = source.tokenizer(ema=models.ema).to(device)
    check_pair(tokenizer, ar, trained_with=model.trained_with)
    if source is not model:
        check_own_codes(model, source, ema=models.ema)
    found = "t2i" if is_text_to_image(ar) else "c2i"
    if kind not in (None, found):
        raise UserError(
            f"{models.ckpt} is a {found} model, not {kind}; call `gear sample {found}`, or leave the word out."
        )
    identity: dict[str, Any] = {
        "name": "gear",
        "version": __version__,
        "ar": model.digest,
        "tokenizer": source.digest,
        "ema": models.ema,
    }
    if wanted.requests_dir is None and found == "c2i":
        identity["labels"] = wanted.labels if wanted.per_class is None else "balanced"
    encoder = None
    if found == "t2i":
        encoder, identity["text_encoder"] = _encoder(model, ar, models.text_encoder, device)
    requests = _requests(ar, ar.config.grid_side * tokenizer.config.downsample, wanted, parity, device)
    requests = requests.limit(wanted.limit) if wanted.limit else requests
    return generate(ar, tokenizer, requests, generator=identity, encoder=encoder, parity=parity, **how)


def _requests(
    ar: ClassConditionalAR | TextToImageAR,
    native_size: int,
    wanted: Wanted,
    parity: Parity | None,
    device: torch.device,
) -> RequestSet:
    """The request set that was given, or one from the other options."""
    from gear.ar.config import ARConfig
    from gear.sampling.command_requests import class_request_set, prompt_request_set
    from harness.contract.requests import RequestSet

    if wanted.requests_dir is not None:
        return RequestSet.read(wanted.requests_dir)
    size = wanted.protocol["image_size"]
    how = SamplingProtocol(**{**wanted.protocol, "image_size": native_size if size is None else size})
    if not isinstance(ar.config, ARConfig):
        return prompt_request_set(
            how, prompts=wanted.prompts, file=wanted.prompts_file, repeats=wanted.repeats, seed=wanted.seed
        )
    classes = ar.config.num_classes
    if parity is not None and wanted.count is not None:
        return parity.requests(how, count=wanted.count, num_classes=classes, device=device)
    return class_request_set(
        how, count=wanted.count, per_class=wanted.per_class, num_classes=classes, labels=wanted.labels, seed=wanted.seed
    )


def _encoder(
    model: ModelFile, ar: ClassConditionalAR | TextToImageAR, source: Path | None, device: torch.device
) -> tuple[TextEncoder, dict[str, Any]]:
    """The text encoder that the model was trained with, and which one it is."""
    from gear.ar.config import TextARConfig
    from gear.text import CachingEncoder, build_text_encoder, weights_digest

    assert isinstance(ar.config, TextARConfig)
    config, precision = model.text_settings(ar.config)
    config = replace(config, source=str(source)) if source else config
    encoder = build_text_encoder(config, device, precision=precision)
    identity = {"name": config.name, "sha256": weights_digest(config), "slots": config.max_length}
    identity["dtype"] = str(next(encoder.model.parameters()).dtype).removeprefix("torch.")
    stored = model.null_caption() if "null_caption" in model.parts else None
    return CachingEncoder(encoder, null=stored), identity
