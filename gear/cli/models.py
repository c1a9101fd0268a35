"""Inspect and convert model files, and try out tokenizers: `gear info`, `gear convert`, `gear reconstruct`.

SOURCE is anything `gear.weights` opens: a file, a run folder, a folder of safetensors, or a hub id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gear.cli.base import FOLDER, Command, torch_device
from harness.contract.errors import UserError

SOURCE = "FILE|DIR|HUB-ID"

_DEFAULT_IMAGE_SIZE = 256
"""Image side that the published tokenizers were trained on; their files do not record it."""


@click.command(cls=Command)
@click.argument("images", type=str)
@click.option("--tokenizer", "source", required=True, metavar=SOURCE, help="Model with the tokenizer.")
@click.option("--out", "out_dir", type=FOLDER, required=True)
@click.option("--image-size", type=click.IntRange(min=1), help="Resize and crop to this.  [default: the model's; 256]")
@click.option(
    "--limit", type=click.IntRange(min=0), default=64, show_default=True, help="At most this many images; 0 = all."
)
@click.option("--ema/--no-ema", default=True, show_default=True, help="Averaged or live weights.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def reconstruct(
    images: str, source: str, out_dir: Path, image_size: int | None, limit: int, ema: bool, device: str
) -> None:
    """Encode and decode images with a tokenizer.

    IMAGES is a folder, a file, or `digits` for the demo's held-out ones.

    \b
      gear reconstruct photos/ --tokenizer vq_ds16_c2i.pt --out recon          # LlamaGen's
      gear reconstruct photos/ --tokenizer IBQ_pretrain_16384.ckpt --out recon --image-size 512
      gear reconstruct digits  --tokenizer exps/e2e --out recon                # a run folder

    Writes OUT/reconstructions/*.png, OUT/sheet.png (original left, reconstruction right), OUT/metrics.json (L1, PSNR,
    SSIM on unrounded pixels, codes used) and OUT/pairs.npz (the first 64 pairs). For rFID and published protocols:
    `harness run --benchmark recon`.
    """
    from gear.reconstruct import reconstruct as run
    from gear.weights import open_model

    model = open_model(source)
    tokenizer = model.tokenizer(ema=ema).to(torch_device(device))
    size = image_size or model.image_size or _DEFAULT_IMAGE_SIZE
    click.echo(json.dumps(run(tokenizer, images, out_dir, size, limit=limit)))


@click.command(cls=Command)
@click.argument("source", metavar=SOURCE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
def info(source: str, as_json: bool, revision: str | None) -> None:
    """Show what a model file contains.

    Prints family, sizes, steps, averages, configuration, digest, the checksum that the content matches, and the tensors
    that loading skips or refuses.

    \b
      gear info exps/ar                       gear info c2i_B_384.pt
      gear info hf://org/name@main --json     gear info pretrain256_16384.ckpt
    """
    from gear.weights import describe

    facts = describe(source, revision=revision)
    click.echo(json.dumps(facts) if as_json else _readable(facts))


@click.command(cls=Command)
@click.argument("source", metavar=SOURCE)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder; a .pt file for --to reference.")
@click.option("--to", type=click.Choice(["hub", "reference"]), default="hub", show_default=True)
@click.option("--part", "parts", multiple=True, help="Only this part (vq_ema, ema, ...); may be repeated.")
@click.option("--image-size", type=click.IntRange(min=1), help="Of an AR model, if its file does not record it.")
@click.option(
    "--preset", metavar="NAME|FILE", help="For an AR model of an unregistered size, if its file has no config."
)
@click.option("--repo-id", default="", metavar="ORG/NAME", help="Name of the repository in the model card.")
@click.option("--revision", help="Branch, tag or commit of SOURCE on the hub.")
def convert(
    source: str,
    out: Path,
    to: str,
    parts: tuple[str, ...],
    image_size: int | None,
    preset: str | None,
    repo_id: str,
    revision: str | None,
) -> None:
    """Convert a model to safetensors, or to the reference's .pt.

    Safetensors come in a folder with config.json and a model card.

    \b
      gear convert vq_ds16_c2i.pt --out vq-16                         # any layout `gear info` knows
      gear convert exps/e2e --out gear-b --part vq_ema --part ema     # what sampling needs, nothing else
      gear convert gear-b --to reference --out gear-b.pt
      hf upload ORG/NAME gear-b                                       # the folder is ready for the hub

    Values and types stay the same, bit for bit. Optimizers and logs are left out, and the command names them.
    """
    from gear.config import load_config
    from gear.convert import to_hub, to_reference
    from gear.foreign import unusable
    from gear.weights import open_model

    model = open_model(source, revision=revision, preset=None if preset is None else load_config(preset))
    if to == "hub":
        done = to_hub(model, out, parts=parts, image_size=image_size, repo_id=repo_id)
    elif image_size is not None or repo_id:
        raise UserError("--image-size and --repo-id belong to the hub layout; leave them out with --to reference.")
    else:
        done = to_reference(model, out, parts=parts)
    for key, why in model.dropped.items():
        click.echo(f"left out: {key} ({why})", err=True)
    for part in parts or model.parts:
        if wrong := unusable(model.parts[part]):
            click.echo(f"not usable: {part} holds NaN or infinity in {', '.join(wrong[:8])}", err=True)
    click.echo(f"{done}")


def _readable(facts: dict[str, Any]) -> str:
    """One line per fact; of the configuration one line per section, and of its stages the one that wrote the file."""
    import yaml

    config, stage = facts["config"], facts["stage"]
    known = {key: value for key, value in facts.items() if key != "config" and value not in (None, {}, [])}
    known["parts"] = [f"{name}: {part['parameters']:,} in {part['tensors']}" for name, part in facts["parts"].items()]
    text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=10_000).rstrip()
    if config is None:
        return text
    stages = config.pop("stages")
    sections = {**config, **({f"stages.{stage}": stages[stage]} if stage in stages else {})}
    lines = (f"  {name}: {json.dumps(value)}" for name, value in sections.items())
    return "\n".join([text, "config:  # all of it with --json", *lines])
