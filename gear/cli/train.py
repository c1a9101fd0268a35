"""`gear train`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gear.cli.base import FOLDER, Group, torch_device
from harness.contract.errors import UserError

if TYPE_CHECKING:
    from gear.config import RunConfig
    from gear.weights import ModelFile


@click.group(cls=Group)
def train() -> None:
    """Train one stage: tokenizer, e2e (GEAR itself), ar, or t2i (text-to-image).

    A stage writes OUT/model.pt when its last step is done, OUT/log.jsonl and OUT/images as it goes, and OUT/checkpoints
    to continue from. `gear presets` lists the configurations; --set changes one field, e.g. stages.e2e.steps=300.

    --data-dir takes a folder of class folders, of images with captions (IMAGE.txt beside each, or metadata.jsonl), of
    tar shards (GPIC, BLIP3o; also a .tar or a quoted pattern), or of IDX files (MNIST and its kin); several with
    commas between, --set data.data_probs=0.7,0.3 for their shares. Samples that cannot be used are named in
    OUT/bad_samples.jsonl.

    \b
    On several GPUs, on one machine or many (a batch size is that of all processes together):
      torchrun --nproc-per-node 8 -m gear train e2e --preset imagenet-xl-vq --init exps/vq16 --out exps/e2e
      python -m gear.training.launch --nproc-per-node 8 train e2e ...  # the same, with the exit status said below
      sbatch [--nodes=N] scripts/train/slurm/train.sh train e2e ...    # requeued until it is done

    \b
    Worth knowing for --set:
      engine.compile=true  engine.activation_checkpointing=true  engine.sharding=fsdp (for models that do not fit)
      stages.e2e.accumulation=4          micro-batches of an update, when a batch does not fit
      stages.e2e.checkpoint_every=1000   stages.e2e.keep_checkpoints=2   stages.e2e.keep_every=50000
      watch.grids_every=5000             sample and reconstruction grids in OUT/images
      watch.generation_every=50000       Frechet distance of drawn images, live and averaged weights
      watch.reconstruction_every=25000   L1, PSNR, SSIM and Frechet distance of reconstructions, live and averaged
      watch.coco_every=50000 watch.coco_dir=DIR   FID and CLIPScore of COCO captions (t2i), averaged weights

    SIGTERM, SIGINT and SIGUSR1 save a checkpoint and exit with status 75. After that, or a kill, the same command goes
    on; on a CPU with the same number of processes it ends with the same bits. A loss that is not finite ends the run
    with status 6 before anything of it is saved; OUT/nonfinite.json names step, terms and samples.
    """


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all stages ask for."""

    @click.option("--preset", metavar="NAME|FILE", help="Preset or YAML file; default: the one inside --init.")
    @click.option("--out", "out_dir", type=FOLDER, required=True, help="Run folder; continued when it exists.")
    @click.option("--data-dir", metavar="DIR", help="Training data; what kind it is is found out by looking.")
    @click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one field; may be repeated.")
    @click.option("--track", metavar="NAME", help="tensorboard, wandb, or both with a comma, beside log.jsonl.")
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Tokenizer to start from, and its critic if it has one.")
def tokenizer(init: str | None, **options: Any) -> None:
    """Warm up the tokenizer: reconstruction, perceptual and adversarial losses.

    \b
      gear train tokenizer --preset imagenet-xl-vq --init vq_ds16_c2i.pt --data-dir imagenet/train --out exps/vq16

    SOURCE: a run folder, or the file or hub id of a tokenizer, also a published one of another project; `gear info
    SOURCE` says what it is. Without --init the stage starts from what the preset names, if it names something, else
    from scratch.
    """
    _train("tokenizer", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `tokenizer`; default: what the preset names.")
def e2e(init: str | None, **options: Any) -> None:
    """GEAR: train the tokenizer and the AR model together, each with its own loss.

    \b
      gear train e2e --preset demo --init exps/demo/tokenizer --out exps/demo/e2e
      gear train e2e --preset imagenet-xl-vq --data-dir imagenet/train --out exps/stage1
      gear train e2e --preset imagenet-l-ibq-dinov3 --set gear.temperature=0.05 --init ibq-with-gan.pt ...

    `gear presets NAME` lists the files from outside that a preset needs, and how to get them.
    """
    _train("e2e", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `e2e` whose AR model to continue.")
@click.option("--tokenizer", "tokenizer_source", metavar="SOURCE", help="Frozen tokenizer; default: --init's.")
def ar(init: str | None, tokenizer_source: str | None, **options: Any) -> None:
    """Train the AR model on a frozen tokenizer.

    With --init it continues GEAR; with only --tokenizer it starts fresh (the LlamaGen-REPA baseline when the
    tokenizer comes from stage `tokenizer`).
    """
    _train("ar", init=init, tokenizer=tokenizer_source, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `t2i`, or of `e2e` or `ar`, to start from.")
@click.option("--tokenizer", "tokenizer_source", metavar="SOURCE", help="Frozen tokenizer; default: --init's.")
def t2i(init: str | None, tokenizer_source: str | None, **options: Any) -> None:
    """Train a text-to-image AR model on a frozen tokenizer and a frozen text encoder.

    \b
      gear train t2i --preset digits-t2i --tokenizer exps/e2e --out exps/t2i
      gear train t2i --preset t2i-gpic-gear-1b --tokenizer exps/e2e --data-dir SHARDS --out exps/t2i

    From a class-conditional --init it takes the trunk; the text stream starts as a copy of the image stream.
    """
    _train("t2i", init=init, tokenizer=tokenizer_source, **options)


def _train(
    phase: str,
    *,
    init: str | None,
    tokenizer: str | None,
    preset: str | None,
    out_dir: Path,
    data_dir: str | None,
    overrides: tuple[str, ...],
    track: str | None,
    device: str,
) -> None:
    from gear.required_files import frozen_digests
    from gear.training.loop import fit
    from gear.training.processes.distributed import decided_by_main, process_group, world
    from gear.training.stages.build import build_stage
    from gear.training.stages.initial_weights import published_initial_weights
    from gear.weights import open_model

    starts = {name: open_model(source) for name, source in (("init", init), ("tokenizer", tokenizer)) if source}
    if track is not None:
        overrides += (f"watch.track={track}",)
    config = _configuration(preset, next(iter(starts.values()), None), data_dir, overrides)
    if not starts and (published := published_initial_weights(phase, config)) is not None:
        starts["init"] = published
    with process_group(torch_device(device)) as own_device:
        if not world().is_main:
            logging.getLogger().setLevel(logging.ERROR)  # one process speaks for all
        stage, source = build_stage(phase, config, own_device, **starts)
        files = {name: start.digest for name, start in starts.items()}
        files |= decided_by_main(lambda: frozen_digests(phase, config))
        done = fit(stage, source, out_dir, files)
        if world().is_main:
            click.echo(f"{done}")


def _configuration(
    preset: str | None, start: ModelFile | None, data_dir: str | None, overrides: tuple[str, ...]
) -> RunConfig:
    """The configuration of a run: the preset's, or that of the model it starts from; with the changes asked for."""
    from gear.config import RunConfig
    from gear.presets import apply_override, read_preset

    if preset is not None:
        values = read_preset(preset)
    elif start is not None and start.run is not None:
        values = copy.deepcopy(dict(start.run))
    else:
        raise UserError("no configuration was given; name one with --preset (see `gear presets`).")
    if data_dir is not None:
        # The folder is looked at, whatever the preset was made for; --set data.kind=... says it outright.
        values["data"] = {**values.get("data", {}), "data_dir": data_dir, "kind": "auto"}
    for override in overrides:
        apply_override(values, override)
    return RunConfig.from_dict(values)
