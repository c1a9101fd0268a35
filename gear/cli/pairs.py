"""`gear pairs`: the images that the benchmark `recon` scores a tokenizer on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gear import __version__
from gear.cli.base import FOLDER, Command, torch_device


@click.command(cls=Command)
@click.argument("images", type=str)
@click.option("--tokenizer", "source", required=True, metavar="FILE|DIR|HUB-ID", help="Model with the tokenizer.")
@click.option("--out", "out_dir", type=FOLDER, required=True)
@click.option("--image-size", type=click.IntRange(min=1), default=256, show_default=True)
@click.option(
    "--resize",
    type=click.Choice(["bicubic", "bilinear"]),
    default="bicubic",
    show_default=True,
    help="Filter for resizing; bilinear is the protocol of Open-MAGVIT2 and IBQ.",
)
@click.option("--limit", type=click.IntRange(min=0), default=0, show_default=True, help="First N images; 0 = all.")
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def pairs(
    images: str,
    source: str,
    out_dir: Path,
    image_size: int,
    resize: Literal["bicubic", "bilinear"],
    limit: int,
    ema: bool,
    device: str,
) -> None:
    """Write originals and reconstructions, unrounded, to score.

    IMAGES is a folder, or `digits` for the demo's held-out ones.

    \b
      gear pairs val/ --tokenizer vq_ds16_c2i.pt --out pairs
      harness score recon --samples pairs
      harness run --benchmark recon --tokenizer vq_ds16_c2i.pt --asset imagenet-val=val/       # both at once

    Writes OUT/originals.npz, OUT/reconstructions.npz (float32 within 0..1) and OUT/pairs.json.
    """
    from gear.pairs import write_pairs
    from gear.weights import open_model

    tokenizer = open_model(source).tokenizer(ema=ema).to(torch_device(device))
    made = {"generator": "gear", "version": __version__, "tokenizer": Path(source).name, "ema": ema}
    count = write_pairs(tokenizer, images, out_dir, image_size, resample=resize, limit=limit, made=made)
    click.echo(f"{count} pairs in {out_dir}")
