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
    """Train one stage: tokenizer, e2e (GEAR itself), ar or t2i.

    A stage writes OUT/log.jsonl, OUT/images and OUT/checkpoints (to resume from) during training, and OUT/model.pt when
    its last step is done. `gear presets` lists the configurations; --set changes one field, e.g. stages.e2e.steps=300.

    --data-dir takes a folder of class folders, of images with captions (IMAGE.txt beside each, or metadata.jsonl or
    .csv), of tar shards (GPIC, BLIP3o; also a .tar or a quoted pattern), or of IDX files (MNIST and the like). Separate
    several with commas; --set data.data_probs=0.7,0.3 sets their shares. Unusable samples are listed in
    OUT/bad_samples.jsonl.

    \b
    On several GPUs, on one machine or many (the batch size is the total over all processes):
      torchrun --nproc-per-node 8 -m gear train e2e --preset imagenet-xl-vq --init exps/vq16 --out exps/e2e
      python -m gear.training.launch --nproc-per-node 8 train e2e ...  # the same, with the exit status described below
      sbatch [--nodes=N] scripts/train/slurm/train.sh train e2e ...    # requeued until done

    \b
    Worth knowing for --set:
      engine.compile=false  precision=fp16 (a GPU without bfloat16)  gear.align_coeff=0 (ar, t2i: without a teacher)
      engine.activation_checkpointing=true  engine.sharding=fsdp (for models that do not fit)
      stages.e2e.accumulation=4          micro-batches per update, when a batch does not fit
      stages.e2e.checkpoint_every=1000   stages.e2e.keep_checkpoints=2   stages.e2e.keep_every=50000
      watch.grids_every=5000             sample and reconstruction grids in OUT/images
      watch.generation_every=50000       Frechet distance of samples, live and averaged weights
      watch.reconstruction_every=25000   L1, PSNR, SSIM and Frechet distance of reconstructions, live and averaged
      watch.coco_every=50000 watch.coco_dir=DIR   FID and CLIPScore of COCO captions (t2i), averaged weights

    SIGTERM, SIGINT and SIGUSR1 save a checkpoint and exit with status 75. After that, or a kill, the same command
    resumes the run; on a CPU with the same number of processes the final bits are those of an uninterrupted run. A loss
    that is not finite ends the run with status 6 and is never saved; OUT/nonfinite.json names step, terms and samples.
    """


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all stages share."""

    @click.option("--preset", metavar="NAME|FILE", help="Preset or YAML file; default: the one inside --init.")
    @click.option("--out", "out_dir", type=FOLDER, required=True, help="Run folder; continued when it exists.")
    @click.option("--data-dir", metavar="DIR", help="Training data; its kind is detected.")
    @click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one field; may be repeated.")
    @click.option("--track", metavar="NAME", help="tensorboard, wandb, or both (tensorboard,wandb), besides log.jsonl.")
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Tokenizer to start from, and its critic if it has one.")
def tokenizer(init: str | None, **options: Any) -> None:
    """Warm up the tokenizer before it is trained with the AR.

    The losses are reconstruction, perceptual and adversarial.

    \b
      gear train tokenizer --preset imagenet-xl-vq --init vq_ds16_c2i.pt --data-dir imagenet/train --out exps/vq16

    SOURCE is a run folder, or the file or hub id of a tokenizer, including published ones of other projects; `gear info
    SOURCE` shows what it is. Without --init the stage starts from the model that the preset names, or from scratch if
    it names none.
    """
    _train("tokenizer", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `tokenizer`; default: what the preset names.")
def e2e(init: str | None, **options: Any) -> None:
    """GEAR: train the tokenizer and the AR model together.

    Each has its own loss.

    \b
      gear train e2e --preset demo --init exps/demo/tokenizer --out exps/demo/e2e
      gear train e2e --preset imagenet-xl-vq --data-dir imagenet/train --out exps/stage1
      gear train e2e --preset imagenet-l-ibq-dinov3 --set gear.temperature=0.05 --init ibq-with-gan.pt ...

    `gear presets NAME` lists the external files that a preset needs, and how to get them.
    """
    _train("e2e", init=init, tokenizer=None, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `e2e` whose AR model to continue.")
@click.option("--tokenizer", "tokenizer_source", metavar="SOURCE", help="Frozen tokenizer; default: --init's.")
def ar(init: str | None, tokenizer_source: str | None, **options: Any) -> None:
    """Train the AR model on a frozen tokenizer.

    With --init it continues GEAR's AR model; with only --tokenizer it starts from scratch (the LlamaGen-REPA baseline,
    if the tokenizer comes from stage `tokenizer`).
    """
    _train("ar", init=init, tokenizer=tokenizer_source, **options)


@train.command()
@stage_options
@click.option("--init", metavar="SOURCE", help="Model of stage `t2i`, or of `e2e` or `ar`, to start from.")
@click.option("--tokenizer", "tokenizer_source", metavar="SOURCE", help="Frozen tokenizer; default: --init's.")
def t2i(init: str | None, tokenizer_source: str | None, **options: Any) -> None:
    """Train a text-to-image AR model on a frozen tokenizer.

    The text encoder is frozen, too.

    \b
      gear train t2i --preset digits-t2i --tokenizer exps/e2e --out exps/t2i
      gear train t2i --preset t2i-gpic-gear-1b --tokenizer exps/e2e --data-dir SHARDS --out exps/t2i

    A class-conditional --init gives the trunk; the text stream then starts as a copy of the image stream.
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
            logging.getLogger().setLevel(logging.ERROR)  # only one process logs
        stage, source = build_stage(phase, config, own_device, **starts)
        files = {name: start.digest for name, start in starts.items()}
        files |= decided_by_main(lambda: frozen_digests(phase, config))
        done = fit(stage, source, out_dir, files)
        if world().is_main:
            click.echo(f"{done}")


def _configuration(
    preset: str | None, start: ModelFile | None, data_dir: str | None, overrides: tuple[str, ...]
) -> RunConfig:
    """The configuration of a run: the preset's, or that of the model it starts from; with --set applied."""
    from gear.config import RunConfig
    from gear.presets import apply_override, read_preset, section

    if preset is not None:
        values = read_preset(preset)
    elif start is not None and start.run is not None:
        values = copy.deepcopy(dict(start.run))
    else:
        raise UserError("no configuration was given; name one with --preset (see `gear presets`).")
    if data_dir is not None:
        # The kind is detected from the folder, whatever the preset says; --set data.kind=... overrides that.
        values["data"] = {**section(values, "data"), "data_dir": data_dir, "kind": "auto"}
    for override in overrides:
        apply_override(values, override)
    return RunConfig.from_dict(values)
