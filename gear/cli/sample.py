"""`gear sample`: the generator that the harness calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from gear import __version__
from gear.cli.base import EXISTING, FOLDER, Command, torch_device
from harness.contract.errors import UserError


@click.command(cls=Command)
@click.option("--ckpt", type=EXISTING, required=True, metavar="FILE|DIR", help="Model with the AR model.")
@click.option("--vq-ckpt", type=EXISTING, metavar="FILE|DIR", help="Model with the tokenizer; default: --ckpt.")
@click.option("--requests", "requests_dir", type=EXISTING, help="Request set: what to draw, with seeds and protocol.")
@click.option("--out", "out_dir", type=FOLDER, required=True, help="Sample set; continued when it is unfinished.")
@click.option("--form", type=click.Choice(["npz", "png"]), default="npz", show_default=True)
@click.option("--batch-size", default=64, show_default=True, help="Images decoded together.")
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--per-class", type=int, help="Without --requests: images of each class.")
@click.option("--seed", default=0, show_default=True, help="Without --requests: run seed.")
@click.option("--cfg-scale", default=1.0, show_default=True, help="Without --requests: guidance; 1 is none.")
@click.option("--temperature", default=1.0, show_default=True, help="Without --requests.")
@click.option("--top-k", default=0, show_default=True, help="Without --requests; 0 keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help="Without --requests; 1 keeps all.")
def sample(
    ckpt: Path,
    vq_ckpt: Path | None,
    requests_dir: Path | None,
    out_dir: Path,
    form: Literal["npz", "png"],
    batch_size: int,
    ema: bool,
    device: str,
    per_class: int | None,
    seed: int,
    **protocol: Any,
) -> None:
    """Draw a sample set from a request set, or some images of every class.

    \b
      gear sample --ckpt exps/demo/ar --requests REQUESTS --out SAMPLES
      gear sample --ckpt exps/demo/ar --per-class 8 --cfg-scale 2 --form png --out SAMPLES

    Every image has its own random stream from its seed in the request set: its tokens do not depend on its
    neighbours, the order, the batch size or interruptions. For the same batch size its pixels do not either; with
    another one convolutions may round differently, which can move a pixel by one level.
    """
    from gear.sampling.generate import generate
    from gear.weights import config_of, load_ar, load_tokenizer, model_path, read_model
    from harness.contract.digest import sha256_file
    from harness.contract.requests import Protocol, RequestSet, class_requests

    state = read_model(ckpt)
    config = config_of(state)
    if requests_dir is not None:
        requests = RequestSet.read(requests_dir)
    elif per_class is not None:
        requests = class_requests(
            "gear-sample",
            1,
            Protocol(image_size=config.data.image_size, **protocol),
            count=per_class * config.data.num_classes,
            num_classes=config.data.num_classes,
            labels="balanced",
            run_seed=seed,
        )
    else:
        raise UserError("say what to draw: a request set with --requests DIR, or --per-class N.")
    target = torch_device(device)
    identity = {
        "name": "gear",
        "version": __version__,
        "ar": sha256_file(model_path(ckpt)),
        "tokenizer": sha256_file(model_path(vq_ckpt or ckpt)),
        "ema": ema,
    }
    samples = generate(
        load_ar(state, ema=ema).to(target),
        load_tokenizer(read_model(vq_ckpt) if vq_ckpt else state, ema=ema).to(target),
        requests,
        out_dir,
        batch_size=batch_size,
        generator=identity,
        form=form,
    )
    click.echo(f"{len(samples)} images in {out_dir}, digest {samples.digest}")
