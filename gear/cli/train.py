"""`gear train`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from gear.cli.base import EXISTING, FOLDER, Group, torch_device
from gear.cli.presets import presets as presets
from harness.contract.errors import UserError


@click.group(cls=Group)
def train() -> None:
    """Train one stage: tokenizer, e2e (GEAR itself), ar, or t2i (text-to-image).

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


@train.command()
@stage_options
@click.option(
    "--init", type=EXISTING, metavar="FILE|DIR", help="Model of stage `t2i`, or of `e2e` or `ar`, to start from."
)
@click.option(
    "--tokenizer", "tokenizer_path", type=EXISTING, metavar="FILE|DIR", help="Frozen tokenizer; default: --init's."
)
def t2i(init: Path | None, tokenizer_path: Path | None, **options: Any) -> None:
    """Train a text-to-image AR model on a frozen tokenizer and a frozen text encoder.

    \b
      gear train t2i --preset digits-t2i --tokenizer exps/e2e --out exps/t2i
      gear train t2i --preset t2i-gpic-gear-1b --tokenizer exps/e2e --data-dir SHARDS --out exps/t2i

    From a class-conditional --init it takes the trunk; the text stream starts as a copy of the image stream.
    """
    _train("t2i", init=init, tokenizer=tokenizer_path, **options)


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
    from gear.config import RunConfig
    from gear.presets import apply_override, read_preset
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
    stage, source = build_stage(phase, config, torch_device(device), **states)
    done = fit(stage, source, out_dir, {name: sha256_file(path) for name, path in sources.items()})
    click.echo(f"{done}")
