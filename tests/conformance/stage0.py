"""The `stage0_*` cases of area `losses`: updates of the reference's tokenizer trainer (spec tokenizer-losses.md, 4).

Adam's first steps are sign-like, so rounding moves parameters whose gradient is nearly zero by whole learning rates.
The first update is therefore compared in float32, and the verdict over all updates is taken in float64.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gear.ar.config import ARConfig
from gear.config import OptimizerConfig, RunConfig, StageConfig
from gear.data.loader import Batch
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossConfig, LossHead
from gear.losses.lpips import LPIPS
from gear.tokenizers import FAMILIES, build_tokenizer
from gear.training.stages.stage import Logs
from gear.training.stages.tokenizer import TokenizerStage
from harness.metrics.image import l1, mean_of_batch_means, psnr, ssim
from tests.conformance.area_gear_step import default_dtype, tokenizer_config
from tests.conformance.case import Result, Unsupported, check, check_equal, load_case
from tests.conformance.hash_weights import hash_weights

Arrays = dict[str, np.ndarray]


def run(path: Path) -> list[Result]:
    meta, arrays = load_case(path)
    if meta["family"] not in FAMILIES:
        raise Unsupported(f"tokenizer family {meta['family']}")
    results = _follow(meta, arrays, updates=1, where="float32 ")
    with default_dtype(torch.float64):
        return results + _follow(meta, arrays, updates=_updates(meta), where="float64 ")


def _updates(meta: dict[str, Any]) -> int:
    return meta["batches"] // meta["args"]["gradient_accumulation_steps"]


def build(meta: dict[str, Any], arrays: Arrays) -> TokenizerStage:
    args = meta["args"]
    fields = dict(meta["config"])
    fields.pop("entropy_loss_ratio")
    if args["commit_loss_beta"] is not None:
        fields["commit_loss_beta"] = args["commit_loss_beta"]
    config = tokenizer_config(meta["family"], args["image_size"], args["entropy_loss_ratio"], fields)
    optimizer = {
        "beta1": args["adam_beta1"],
        "beta2": args["adam_beta2"],
        "eps": args["adam_epsilon"],
        "weight_decay": args["adam_weight_decay"],
        "warmup_steps": args["warmup_steps"],
    }
    accumulation = args["gradient_accumulation_steps"]
    settings = StageConfig(
        batch_size=args["batch_size"] * accumulation,
        accumulation=accumulation,
        max_grad_norm=args["max_grad_norm"],
        ema_decay=args["vq_ema_decay"],
        tokenizer=OptimizerConfig(lr=args["vq_lr"], **optimizer),
        discriminator=OptimizerConfig(lr=args["disc_lr"], **optimizer),
    )
    unused_ar = ARConfig(dim=32, n_layer=8, n_head=2)
    run_config = RunConfig(tokenizer=config, ar=unused_ar, stages={"tokenizer": settings})
    tokenizer, critic, perceptual = build_tokenizer(config), PatchDiscriminator(**meta["discriminator"]), LPIPS()
    for name, module in (("vq", tokenizer), ("discriminator", critic)):
        prefix = f"initial/{name}/"
        weights = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        module.load_state_dict({key: _widened(value) for key, value in weights.items()})
    scaling = {key: value for key, value in perceptual.state_dict().items() if key.startswith("scaling_layer.")}
    perceptual.load_state_dict({**scaling, **hash_weights(meta["hash_weights_lpips"])})
    losses = LossHead(LossConfig(), critic, perceptual)
    return TokenizerStage(run_config, torch.device("cpu"), tokenizer=tokenizer, losses=losses)


def _widened(value: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(value)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _follow(meta: dict[str, Any], arrays: Arrays, *, updates: int, where: str) -> list[Result]:
    """Run the updates and compare what the reference stored after each."""
    stage, parts = build(meta, arrays), meta["args"]["gradient_accumulation_steps"]
    results: list[Result] = []
    for update in range(1, updates + 1):
        logs: Logs = {}
        for part in range(parts):
            images = torch.from_numpy(arrays[f"batch/{(update - 1) * parts + part}"])
            batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))
            logs = stage.micro_step(batch, last=part == parts - 1, diagnose=True)
        stage.finish_update()
        want = next(entry for entry in meta["logs"] if entry["step"] == update and "vq_total" in entry)
        results += _check_values(meta, f"{where}step {update}", {k: float(v) for k, v in logs.items()}, want)
        results += _check_state(meta, arrays, stage, update, where)
    for entry in meta["logs"]:
        for prefix, module in (("vq_val/", stage.tokenizer), ("vq_val_ema/", stage.averages["vq_ema"].module)):
            if entry["step"] == updates and any(name.startswith(prefix) for name in entry):
                values = _validate(meta, arrays, module)
                results += _check_values(meta, where, {f"{prefix}{k}": v for k, v in values.items()}, entry)
    return results


def _check_values(meta: dict[str, Any], where: str, got: dict[str, float], want: dict[str, float]) -> list[Result]:
    results = []
    for name, value in want.items():
        if name != "step":
            relative = 5e-3 if "grad_norm" in name else 1e-3
            limit = max(relative * abs(value), 20 * meta["log_sensitivity"].get(name, 0.0))
            results.append(check(f"{where} {name}", got[name], value, atol=limit))
    return results


def _check_state(meta: dict[str, Any], arrays: Arrays, stage: TokenizerStage, update: int, where: str) -> list[Result]:
    modules = {
        "vq": stage.tokenizer,
        "vq_ema": stage.averages["vq_ema"].module,
        "discriminator": stage.losses.discriminator,
    }
    optimizers = {"opt_vq": ("vq", stage.tokenizer_opt), "opt_disc": ("discriminator", stage.discriminator_opt)}
    results: list[Result] = []
    for name, value in arrays.items():
        prefix, _, rest = name.partition("/")
        if prefix != f"step{update}":
            continue
        owner, _, key = rest.partition("/")
        if owner in modules:
            got = modules[owner].state_dict()[key]
            results += _check_tensor(meta, name, got, value, where)
        else:
            module_name, optimization = optimizers[owner]
            moment, _, parameter = key.partition("/")
            state = optimization.optimizer.state[dict(modules[module_name].named_parameters())[parameter]]
            got = state[moment][: value.shape[0]] if value.ndim else state[moment]
            atol = meta["tolerance"]["moments_atol"][name]
            results.append(check(where + name, got, value, atol=atol))
    return results


def _check_tensor(meta: dict[str, Any], name: str, got: Tensor, value: np.ndarray, where: str) -> list[Result]:
    """At least 90 % of the elements within the first limit, all of them within the second."""
    got = got[: value.shape[0]] if value.ndim else got
    if np.issubdtype(value.dtype, np.integer):
        return [check_equal(where + name, got, value)]
    most, all_of = meta["tolerance"]["state_90pct_and_max"][name]
    difference = np.abs(got.detach().numpy().astype(np.float64) - value.astype(np.float64))
    quantile = float(np.quantile(difference, 0.9, method="higher"))
    return [
        Result(f"{where}{name} (90 %)", quantile, most, bool(np.mean(difference <= most) >= 0.9)),
        check(where + name, got, value, atol=all_of),
    ]


@torch.no_grad()
def _validate(meta: dict[str, Any], arrays: Arrays, module: nn.Module) -> dict[str, float]:
    """Reconstruction metrics of spec section 5 over `val_images`, as means of batch means."""
    size = int(re.search(r"batch size (\d+)", meta["logs_note"]).group(1))  # type: ignore[union-attr]
    images_u8, was_training = torch.from_numpy(arrays["val_images"]), module.training
    module.eval()
    pixels = images_u8.to(torch.get_default_dtype()) / 127.5 - 1.0
    recon = torch.cat([module(part).recon for part in pixels.split(size)])
    module.train(was_training)
    ours, theirs = (recon.clamp(-1, 1).numpy() + 1) / 2, (pixels.clamp(-1, 1).numpy() + 1) / 2
    return {
        "l1": mean_of_batch_means(l1(theirs, ours), size),
        "psnr": mean_of_batch_means(psnr(theirs, ours), size),
        "ssim": float(np.mean(ssim(theirs, ours))),
    }
