"""Looking into model files and trying tokenizers out: `gear info`, `gear reconstruct`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gear.cli.base import EXISTING, FOLDER, Command, torch_device


@click.command(cls=Command)
@click.argument("images", type=str)
@click.option(
    "--tokenizer", "source", type=EXISTING, required=True, metavar="FILE|DIR", help="Model with the tokenizer."
)
@click.option("--out", "out_dir", type=FOLDER, required=True)
@click.option("--limit", default=64, show_default=True, help="At most this many images; 0 = all.")
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def reconstruct(images: str, source: Path, out_dir: Path, limit: int, ema: bool, device: str) -> None:
    """Encode and decode IMAGES (a folder, or `digits` for the demo's held-out ones).

    Writes OUT/reconstructions/*.png, OUT/pairs.npz (originals and reconstructions), OUT/sheet.png (side by side) and
    OUT/metrics.json (L1, PSNR, SSIM, taken on unrounded pixels).
    """
    from gear.reconstruct import reconstruct as run
    from gear.weights import config_of, load_tokenizer, read_model

    state = read_model(source)
    tokenizer = load_tokenizer(state, ema=ema).to(torch_device(device))
    metrics = run(tokenizer, images, out_dir, config_of(state).data.image_size, limit=limit)
    click.echo(json.dumps(metrics))


@click.command(cls=Command)
@click.argument("source", type=EXISTING, metavar="FILE|DIR")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def info(source: Path, as_json: bool) -> None:
    """What a model file holds: family, sizes, steps, averages, configuration, digest."""
    from gear.weights import describe

    facts = describe(source)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        import yaml

        click.echo(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True).rstrip())
