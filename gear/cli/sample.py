"""`gear sample`: the generator that the harness calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gear import __version__
from gear.cli.base import EXISTING, FOLDER, Command, torch_device
from harness.contract.errors import UserError

if TYPE_CHECKING:
    from gear.sampling.engine import Speed
    from gear.text.base import TextEncoder
    from gear.weights import ModelFile
    from harness.contract.requests import RequestSet

_ALONE = "Without --requests"


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(["c2i", "t2i"]), required=False)
@click.option("--ckpt", required=True, metavar="FILE|DIR|HUB", help="Model with the AR model.")
@click.option("--vq-ckpt", metavar="FILE|DIR|HUB", help="Model with the tokenizer; default: --ckpt.")
@click.option("--text-encoder", type=EXISTING, metavar="DIR", help="t2i: the text encoder's weights, if they moved.")
@click.option("--requests", "requests_dir", type=EXISTING, help="Request set: what to draw, with seeds and protocol.")
@click.option("--out", "out_dir", type=FOLDER, required=True, help="Sample set; continued when it is unfinished.")
@click.option("--form", type=click.Choice(["npz", "png"]), default="npz", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N requests.")
@click.option("--batch-size", default=64, show_default=True, help="Images in the works at once: memory, not pixels.")
@click.option("--tile", type=int, help="Images computed together: may move last bits.  [default: CPU 8, GPU 32]")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of the AR model."
)
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True, help="GPU: fuse kernels.")
@click.option("--processes", type=click.IntRange(min=1), help="Side by side.  [default: one per visible GPU]")
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--trained-size", type=int, help="Image size of the AR model, where its file does not tell.")
@click.option("--rounding", type=click.Choice(["truncate", "nearest"]), default="truncate", show_default=True)
@click.option("--parity", is_flag=True, help="The reference's random streams, not one per image; see below.")
@click.option("--parity-ranks", default=1, show_default=True, help="Processes of the run that --parity repeats.")
@click.option("--count", type=click.IntRange(min=1), help=f"{_ALONE}, c2i: images, with --labels.")
@click.option("--per-class", type=click.IntRange(min=1), help=f"{_ALONE}, c2i: images of each class.")
@click.option("--labels", type=click.Choice(["random", "balanced"]), default="random", show_default=True)
@click.option("--prompt", "prompts", multiple=True, help=f"{_ALONE}, t2i: a prompt; may be repeated.")
@click.option("--prompts", "prompts_file", type=EXISTING, help=f"{_ALONE}, t2i: a prompt per line, or .jsonl.")
@click.option("--repeats", default=1, show_default=True, help=f"{_ALONE}, t2i: images per prompt.")
@click.option("--seed", default=0, show_default=True, help=f"{_ALONE}, or with --parity: run seed.")
@click.option("--image-size", type=int, help=f"{_ALONE}: stored size.  [default: as the models draw]")
@click.option("--cfg-scale", default=1.0, show_default=True, help=f"{_ALONE}: guidance; 1 is none.")
@click.option("--cfg-interval", default=-1.0, show_default=True, help=f"{_ALONE}: guide tokens 0 .. this + 1; -1 all.")
@click.option("--temperature", default=1.0, show_default=True, help=f"{_ALONE}.")
@click.option("--top-k", default=0, show_default=True, help=f"{_ALONE}; 0 keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help=f"{_ALONE}; 1 keeps all.")
def sample(processes: int | None, out_dir: Path, device: str, parity: bool, **options: Any) -> None:
    """Draw a sample set: from a request set, or some images of classes or prompts. KIND (c2i, t2i) may be left out.

    \b
      gear sample --ckpt exps/demo/ar --requests REQUESTS --out SAMPLES
      gear sample c2i --ckpt exps/demo/ar --per-class 8 --cfg-scale 2 --form png --out SAMPLES
      gear sample t2i --ckpt exps/t2i --prompt "a red seven" --repeats 4 --cfg-scale 4 --out SAMPLES
      torchrun --nproc-per-node 8 -m gear sample --ckpt exps/ar --requests REQUESTS --out SAMPLES

    Every image has its own random stream, from its seed in the request set. On one type of device neither its tokens
    nor its pixels depend on the batch size, the number of processes, the order, --limit, or interruptions: everything
    is computed in tiles of a fixed size (--tile), the last one filled up. CPU and GPU, different GPUs, and bf16 and
    fp32, round differently, and a token may tip over on it; device, --tile and --dtype are recorded with the samples.

    Several processes share the work through the output folder: one that is slow or dies has its share drawn by the
    others. The same command again continues. Prompts longer than the text encoder's slots are cut, and counted.

    --parity draws labels and tokens as the reference does, from streams of each process (seeds --seed + rank), so
    that batch size and --parity-ranks decide every image; unfinished runs go through all iterations again.

    Exit status: 0 done; 2 the requests and the models do not fit, or wrong usage; 4 weights are missing; 6 the disk is
    full, or another failure of the machine. Finished shards are kept in every case.
    """
    if _start_processes(processes, device, parity, out_dir):
        return
    from gear.sampling.engine import Speed
    from gear.sampling.shards import Place

    place = Place.from_environment()
    speed = Speed(tile=options.pop("tile"), dtype=_dtype(options.pop("dtype")), compiled=options.pop("compiled"))
    samples = _sample(out_dir, torch_device(_local(device)), place, speed, parity, **options)
    if samples is not None:
        click.echo(f"{len(samples)} images in {out_dir}, digest {samples.digest}")


def _start_processes(count: int | None, device: str, parity: bool, out_dir: Path) -> bool:
    """Start several where there are several GPUs or the user says so; false in one that was started itself."""
    if "WORLD_SIZE" in os.environ or parity:
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


def _sample(
    out_dir: Path,
    device: Any,
    place: Any,
    speed: Speed,
    parity: bool,
    *,
    kind: str | None,
    ckpt: str,
    vq_ckpt: str | None,
    text_encoder: Path | None,
    form: Literal["npz", "png"],
    batch_size: int,
    ema: bool,
    trained_size: int | None,
    rounding: Literal["truncate", "nearest"],
    parity_ranks: int,
    limit: int | None,
    labels: str,
    **asked: Any,
) -> Any:
    """Load, ask, draw."""
    from gear.ar.checkpoints import is_text_to_image
    from gear.sampling.generate import generate
    from gear.sampling.parity import Parity
    from gear.weights import check_pair, open_model

    model = open_model(ckpt)
    source = open_model(vq_ckpt) if vq_ckpt else model
    ar = model.ar(ema=ema, image_size=trained_size).to(device)
    tokenizer = source.tokenizer(ema=ema).to(device)
    check_pair(tokenizer, ar, trained_with=model.trained_with)
    found = "t2i" if is_text_to_image(ar) else "c2i"
    if kind not in (None, found):
        raise UserError(f"{ckpt} is a {found} model, not {kind}; call `gear sample {found}`, or leave the word out.")
    chosen = Parity(seed=asked["seed"], num_ranks=parity_ranks, batch=batch_size) if parity else None
    native = ar.config.grid_side * tokenizer.config.downsample
    requests = _requests(ar, native, chosen, labels=labels, device=device, **asked)
    requests = requests.limit(limit) if limit else requests
    identity: dict[str, Any] = {
        "name": "gear",
        "version": __version__,
        "ar": model.digest,
        "tokenizer": source.digest,
        "ema": ema,
        **({"labels": labels} if asked["requests_dir"] is None and found == "c2i" else {}),
    }
    encoder = _encoder(model, text_encoder, device) if found == "t2i" else None
    if encoder is not None:
        text = encoder.config
        identity["text_encoder"] = {"name": text.name, "revision": text.revision, "slots": text.max_length}
    return generate(
        ar,
        tokenizer,
        requests,
        out_dir,
        generator=identity,
        encoder=encoder,
        batch_size=batch_size,
        form=form,
        rounding=rounding,
        speed=speed,
        place=place,
        parity=chosen,
    )


def _requests(
    ar: Any,
    native_size: int,
    parity: Any,
    *,
    requests_dir: Path | None,
    labels: Any,
    device: Any,
    count: int | None,
    per_class: int | None,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    repeats: int,
    seed: int,
    image_size: int | None,
    **protocol: Any,
) -> RequestSet:
    """The request set that was given, or one from the other options."""
    from gear.ar.config import ARConfig
    from gear.sampling.asked import asked_classes, asked_prompts
    from harness.contract.requests import Protocol, RequestSet

    if requests_dir is not None:
        return RequestSet.read(requests_dir)
    how = Protocol(image_size=image_size or native_size, **protocol)
    config = ar.config
    if not isinstance(config, ARConfig):
        return asked_prompts(how, prompts=prompts, file=prompts_file, repeats=repeats, seed=seed)
    if parity is not None and count is not None:
        return parity.requests(how, count=count, num_classes=config.num_classes, device=device)
    return asked_classes(
        how, count=count, per_class=per_class, num_classes=config.num_classes, labels=labels, seed=seed
    )


def _encoder(model: ModelFile, source: Path | None, device: Any) -> TextEncoder:
    """The text encoder that the model was trained with."""
    from dataclasses import replace

    from gear.text import RememberingEncoder, TextConfig, build_text_encoder

    config = model.config.text if model.config is not None else None
    config = config or TextConfig()
    precision = "fp32" if model.config is None else model.config.precision
    config = replace(config, source=str(source)) if source else config
    encoder = build_text_encoder(config, device, precision=precision)
    stored = model.null_caption() if "null_caption" in model.parts else None
    return RememberingEncoder(encoder, null=stored)
