"""A whole GEAR iteration: ours against the plain eager form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
import torch
from rich.console import Console

from benches.measure import Peak, peak_memory, print_comparison, side_by_side
from benches.plain_step import PlainRun, plain_step
from gear.align import Projectors
from gear.ar.model import ClassConditionalAR
from gear.config import RunConfig
from gear.data.loader import Batch
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossHead
from gear.losses.lpips import LPIPS
from gear.tokenizers import build_tokenizer
from gear.training.stages.e2e import GearStage

TEACHER_DIM = 768
TAP_LAYER = {"B": 4, "L": 8, "XL": 12}


@click.command()
@click.option("--size", type=click.Choice(list(TAP_LAYER)), default="B", show_default=True, help="LlamaGen-SIZE.")
@click.option("--batch", default=2, show_default=True, help="Images of a step.")
@click.option("--codes", default=16_384, show_default=True, help="Entries of the codebook.")
@click.option("--image-size", default=256, show_default=True, help="Side in pixels; a token covers 16.")
@click.option(
    "--ch", default=32, show_default=True, help="Base width of the VQ-16 tokenizer; 128 is the published one."
)
@click.option("--ndf", default=16, show_default=True, help="Filters of the discriminator; 64 is the published number.")
@click.option("--lpips/--no-lpips", default=False, show_default=True, help="With the perceptual loss (random weights).")
@click.option("--repeats", default=3, show_default=True, help="Timed turns of each form, after one to warm up.")
@click.option("--compile", "compiled", is_flag=True, help="GPU: ours with torch.compile, as with engine.compile.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def bench(device: str, repeats: int, **shape: Any) -> None:
    """One end-to-end step: speed and peak memory, ours and plain.

    Both forms train tokenizer, discriminator, AR model and projectors with AdamW and averages on the same weights and
    images; the teacher's features are given. The default is for a CPU: LlamaGen-B, 256 pixels and 16,384 codes as
    published, around a narrow tokenizer without LPIPS, so that the step is not all convolutions. On a GPU both run in
    bfloat16.

    \b
    python scripts/bench.py e2e-step
    python scripts/bench.py e2e-step --device cuda --size XL --batch 16 --ch 128 --ndf 64 --lpips --compile
    """
    prepare = {form: partial(_prepare, form, device, **shape) for form in ("plain", "ours")}
    peaks = {form: peak_memory(prepared, device) for form, prepared in prepare.items()}
    wait = torch.cuda.synchronize if device == "cuda" else None
    timings = side_by_side({form: run() for form, run in prepare.items()}, repeats=repeats, synchronize=wait)
    print_comparison(
        f"one step, {shape['batch']} images of {shape['image_size']} px, LlamaGen-{shape['size']}, "
        f"{shape['codes']} codes, VQ-16 of width {shape['ch']}, {device}",
        timings,
        baseline="plain",
        memory_mib={form: peak.growth for form, peak in peaks.items()},
        rates={form: f"{shape['batch'] / timing.median_s:.3f} images/s" for form, timing in timings.items()},
    )
    _print_memory(peaks)
    _print_losses({form: run()() for form, run in prepare.items()})


def _print_memory(peaks: dict[str, Peak]) -> None:
    console = Console()
    console.print("Peak memory above is what a step needs beside weights, averages and optimizer states. With them:")
    for form, peak in peaks.items():
        console.print(f"  {form:6} {peak.most:8,.0f} MiB ({peak.most / peaks['plain'].most:.0%} of plain)")


def _print_losses(losses: dict[str, dict[str, float]]) -> None:
    """The two forms compute the same step: their first losses agree to rounding."""
    for name, value in losses["plain"].items():
        Console().print(f"  {name:12} plain {value:.6f}, ours {losses['ours'][name]:.6f}")


def _prepare(form: str, device: str, **shape: Any) -> Callable[[], dict[str, float]]:
    """Weights, averages and optimizer states as in the middle of a run, and a call that makes one step."""
    torch.manual_seed(0)
    config = _config(**{**shape, "compiled": shape["compiled"] and form == "ours"})
    tokens = config.ar.block_size
    parts: dict[str, Any] = {
        "tokenizer": build_tokenizer(config.tokenizer),
        "ar": ClassConditionalAR(config.ar),
        "projectors": Projectors(config.ar.dim, config.gear.projector_dim, [TEACHER_DIM]),
    }
    torch.nn.init.normal_(parts["ar"].output.weight, std=0.02)
    critic, perceptual = PatchDiscriminator(ndf=shape["ndf"]), LPIPS() if shape["lpips"] else None
    images = torch.randint(0, 256, (shape["batch"], 3, shape["image_size"], shape["image_size"]), dtype=torch.uint8)
    batch = Batch(images, torch.randint(0, 1000, (shape["batch"],)), torch.arange(shape["batch"])).to(
        torch.device(device)
    )
    targets = torch.randn(shape["batch"], tokens, TEACHER_DIM, device=device)
    for module in (*parts.values(), critic, perceptual):
        if module is not None:
            module.to(device)
    if form == "plain":
        plain = PlainRun(config, **parts, discriminator=critic, perceptual=perceptual, targets=targets)
        optimizers = [plain.tokenizer_opt, plain.discriminator_opt, plain.ar_opt]
        step: Callable[[], Any] = partial(plain_step, plain, batch.pixels, batch.labels)
    else:
        head = LossHead(config.loss, critic, perceptual)
        stage = GearStage(config, torch.device(device), **parts, losses=head, targets=lambda images_u8, ids: [targets])
        optimizers = [optimization.optimizer for optimization in stage.optimizations.values()]
        step = partial(_our_step, stage, batch)
    for optimizer in optimizers:
        _fill(optimizer)
    return partial(_seeded, step)


def _seeded(step: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Seed dropout, so that it is the same in both forms."""
    torch.manual_seed(1)
    return step()


def _our_step(stage: GearStage, batch: Batch) -> dict[str, float]:
    logs = stage.micro_step(batch, last=True, diagnose=False)
    stage.finish_update()
    return {name: float(logs[name]) for name in ("vq_total", "disc/d_loss", "ar_total")}


def _fill(optimizer: torch.optim.Optimizer) -> None:
    """Create moments of zero and a step count of one, so that no measured step has to allocate them."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            state["step"] = torch.ones((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = (torch.empty_like(parameter).fill_(0.0) for _ in range(2))


def _config(
    *, size: str, batch: int, codes: int, image_size: int, ch: int, lpips: bool, compiled: bool, **_: Any
) -> RunConfig:
    optimizer = {"warmup_steps": 0}
    return RunConfig.from_dict(
        {
            "data": {"kind": "image-folder", "image_size": image_size},
            "tokenizer": {"family": "vq", "codebook_size": codes, "ch": ch, "entropy_loss_ratio": 0.05},
            "ar": {"size": f"LlamaGen-{size}"},
            "loss": {"perceptual_weight": float(lpips)},
            "gear": {"tap_layer": TAP_LAYER[size]},
            "engine": {"compile": compiled},
            "stages": {
                "e2e": {
                    "batch_size": batch,
                    "tokenizer": optimizer,
                    "discriminator": optimizer,
                    "ar": optimizer,
                }
            },
        }
    )
