"""The command `gear`: train, sample, reconstruct, look inside a model file.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gear import __version__
from harness.contract.errors import EnvironmentFailure, UserError

if TYPE_CHECKING:
    import torch

# Read by OpenMP when torch is imported. Threads that wait for each other sleep instead of spinning: on a CPU that is
# shared with anything else, a step is several times as fast for it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

EXISTING = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


class Command(click.Command):
    """A command whose user errors are one sentence and a documented exit status, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "torchvision", "safetensors"):
                raise
            click.secho(
                f"error: gear needs {error.name}; install it: pip install 'gear-harness[gear]'", fg="red", err=True
            )
            ctx.exit(EnvironmentFailure.exit_code)


class Group(click.Group):
    command_class = Command
    group_class = type


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gear")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per core]")
def main(quiet: bool, threads: int | None) -> None:
    """Train and sample GEAR: a VQ tokenizer and an autoregressive generator that learn together.

    \b
    The demo, stage by stage (minutes on a CPU, no data needed):
      gear train tokenizer --preset demo --out exps/demo/tokenizer
      gear train e2e       --preset demo --out exps/demo/e2e --init exps/demo/tokenizer
      gear train ar        --preset demo --out exps/demo/ar  --init exps/demo/e2e
      gear sample --ckpt exps/demo/ar --per-class 8 --out exps/demo/samples

    The same command again continues an interrupted one. Exit status: 0 done; 2 wrong usage or input; 4 a weight file
    is missing; 6 the environment failed (a package, the disk, a loss that is not finite); 75 stopped by a signal after
    saving, run the same command to go on.
    """
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported, which is later
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)


@main.group(cls=Group)
def train() -> None:
    """Train one stage: tokenizer, e2e (GEAR itself), or ar.

    A stage writes OUT/model.pt when its last step is done, OUT/log.jsonl as it goes, and OUT/checkpoints to continue
    from. `gear presets` lists the configurations; --set changes one field, e.g. --set stages.e2e.steps=300.
    """


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all stages ask for."""

    @click.option("--preset", metavar="NAME|FILE", help="Preset or YAML file; default: the one inside --init.")
    @click.option("--out", "out_dir", type=FOLDER, required=True, help="Run folder; continued when it exists.")
    @click.option("--data-dir", type=FOLDER, help="Training images as DIR/<class>/<image>.")
    @click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one field; may be repeated.")
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


@train.command()
@stage_options
@click.option("--init", type=EXISTING, metavar="FILE|DIR", help="Model whose tokenizer to start from.")
def tokenizer(init: Path | None, **options: Any) -> None:
    """Warm up the tokenizer: reconstruction, perceptual and adversarial losses."""
    _train("tokenizer", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", type=EXISTING, required=True, metavar="FILE|DIR", help="Model of stage `tokenizer`.")
def e2e(init: Path, **options: Any) -> None:
    """GEAR: train the tokenizer and the AR model together, each with its own loss."""
    _train("e2e", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", type=EXISTING, metavar="FILE|DIR", help="Model of stage `e2e` whose AR model to continue.")
@click.option(
    "--tokenizer", "tokenizer_path", type=EXISTING, metavar="FILE|DIR", help="Frozen tokenizer; default: --init's."
)
def ar(init: Path | None, tokenizer_path: Path | None, **options: Any) -> None:
    """Train the AR model on a frozen tokenizer.

    With --init it continues GEAR; with only --tokenizer it starts fresh (the LlamaGen-REPA baseline when the
    tokenizer comes from stage `tokenizer`).
    """
    _train("ar", init=init, tokenizer=tokenizer_path, **options)


def _train(
    phase: str,
    *,
    init: Path | None,
    tokenizer: Path | None,
    preset: str | None,
    out_dir: Path,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    device: str,
) -> None:
    from gear.config import RunConfig, apply_override, read_preset
    from gear.training.build import build_stage
    from gear.training.loop import fit
    from gear.weights import model_path, read_model
    from harness.contract.digest import sha256_file

    sources = {name: model_path(path) for name, path in (("init", init), ("tokenizer", tokenizer)) if path is not None}
    states = {name: read_model(path) for name, path in sources.items()}
    if preset is not None:
        values = read_preset(preset)
    elif states:
        values = next(iter(states.values()))["config"]
    else:
        raise UserError("no configuration was given; name one with --preset (see `gear presets`).")
    if data_dir is not None:
        values.setdefault("data", {})["data_dir"] = str(data_dir)
    for override in overrides:
        apply_override(values, override)
    config = RunConfig.from_dict(values)
    stage, source = build_stage(phase, config, _device(device), **states)
    done = fit(stage, source, out_dir, {name: sha256_file(path) for name, path in sources.items()})
    click.echo(f"{done}")


@main.command()
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
    torch_device = _device(device)
    identity = {
        "name": "gear",
        "version": __version__,
        "ar": sha256_file(model_path(ckpt)),
        "tokenizer": sha256_file(model_path(vq_ckpt or ckpt)),
        "ema": ema,
    }
    samples = generate(
        load_ar(state, ema=ema).to(torch_device),
        load_tokenizer(read_model(vq_ckpt) if vq_ckpt else state, ema=ema).to(torch_device),
        requests,
        out_dir,
        batch_size=batch_size,
        generator=identity,
        form=form,
    )
    click.echo(f"{len(samples)} images in {out_dir}, digest {samples.digest}")


@main.command()
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
    tokenizer = load_tokenizer(state, ema=ema).to(_device(device))
    metrics = run(tokenizer, images, out_dir, config_of(state).data.image_size, limit=limit)
    click.echo(json.dumps(metrics))


@main.command()
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


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or show one with everything it inherits."""
    import yaml

    from gear.config import load_config, preset_names

    if name is None:
        for preset in preset_names():
            config = load_config(preset)
            models = f"{config.tokenizer.family}, AR {config.ar.n_layer} x {config.ar.dim}"
            click.echo(f"{preset:24} {models}, {config.data.image_size} px")
    else:
        click.echo(yaml.safe_dump(json.loads(json.dumps(load_config(name).to_dict())), sort_keys=False).rstrip())


@main.group(cls=Group)
def data() -> None:
    """Data sets that come with packages."""


@data.command()
@click.option("--out", "out_dir", type=FOLDER, required=True)
def digits(out_dir: Path) -> None:
    """Write the demo's tinted digits: train.npz, held_out.npz, digits.json."""
    from gear.data.digits import write_digits

    click.echo(f"{write_digits(out_dir)}")


def _device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; on a GPU float32 products may use TF32, as the published runs did."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is available here; use --device cpu.")
        torch.set_float32_matmul_precision("high")
    return device
