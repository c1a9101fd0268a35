"""Golden area `gear-step`: whole GEAR iterations, against the reference trainer (spec gear-training.md, section 14).

The first iteration is compared in float32, tensor by tensor. The verdict over all iterations is taken in float64:
Adam turns the sign of a gradient near 1e-7 into a step of 2 lr, so float32 runs drift by rounding alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.align import Projectors, spatial_norm
from gear.ar.config import ARConfig
from gear.ar.model import ClassConditionalAR
from gear.config import GearConfig, OptimizerConfig, RunConfig, StageConfig
from gear.data.loader import Batch
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossConfig, LossHead
from gear.readout import SoftCodes
from gear.tokenizers import FAMILIES, TokenizerConfig, build_tokenizer
from gear.training.stages.e2e import GearStage
from gear.training.stages.stage import Logs
from tests.conformance.case import Result, Unsupported, check, check_equal, load_arrays, load_case

AREA = "gear-step"

Arrays = dict[str, np.ndarray]
MODULES = ("vq", "ar", "projectors", "discriminator")


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if "evidence" not in meta:
        return None
    family = meta["config"]["family"]
    if family not in FAMILIES:
        raise Unsupported(f"tokenizer family {family}")
    given = load_arrays(path.parent / meta["weights_and_inputs_file"])
    # Variants of a case share what happens before they differ.
    shared = {f"out.step1.{name}": given[f"out.step1.{name}"] for name in ("recon", "indices", "d")}
    first = {**shared, **arrays}
    return [*_first_step(meta, given, first), *_all_steps(meta, given, arrays)]


class StandInPerceptual(nn.Module):
    """The perceptual network of these cases: two small convolutions, differences of both feature maps."""

    def __init__(self, given: Arrays) -> None:
        super().__init__()
        first, second = (len(given[f"w.perceptual.conv{i}.weight"]) for i in (1, 2))
        self.conv1 = nn.Conv2d(3, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a_x, a_y = F.relu(self.conv1(x)), F.relu(self.conv1(y))
        b_x, b_y = F.relu(self.conv2(a_x)), F.relu(self.conv2(a_y))
        return (a_x - a_y).square().mean((1, 2, 3)) + (b_x - b_y).square().mean((1, 2, 3))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def tokenizer_config(family: str, image_size: int, entropy_ratio: float, fields: dict[str, Any]) -> TokenizerConfig:
    """The configuration of a golden case; its `ch_mult` is that of encoder and decoder."""
    fields = {**fields, "family": family, "entropy_loss_ratio": entropy_ratio}
    if family == "vq":
        fields["encoder_ch_mult"] = fields["decoder_ch_mult"] = fields.pop("ch_mult")
    if family == "lfq":
        fields = {name: value for name, value in fields.items() if name not in ("codebook_embed_dim", "z_channels")}
    if family == "ibq":
        fields["resolution"] = image_size
    return TokenizerConfig.from_dict(fields)


class EvidenceRecorder:
    """Reads the evidence of isolation right after each backward pass, and the first iteration's gradients."""

    def __init__(self, stage: GearStage) -> None:
        self.stage = stage
        self.evidence: list[dict[str, Any]] = []
        self.grads: dict[str, Tensor] = {}
        for optimization in stage.optimizations.values():
            optimization.after_backward = self

    def __call__(self, name: str, loss: Tensor) -> None:
        modules = {}
        for key in MODULES:
            parameters = dict(self.stage.modules[key].named_parameters())
            grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
            norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads.values()))
            modules[key] = {
                "params": len(parameters),
                "params_with_grad": len(grads),
                "params_requiring_grad": sum(p.requires_grad for p in parameters.values()),
                "training_mode": self.stage.modules[key].training,
                "grad_norm_before_clip": norm if grads else None,
            }
            if self.stage.step == 0:
                self.grads |= {f"{key}.{parameter}": grad.clone() for parameter, grad in grads.items()}
        phase = {"tokenizer": "vq"}.get(name, name)
        self.evidence.append({"step": self.stage.step + 1, "phase": phase, "loss": float(loss), "modules": modules})


def build(meta: dict[str, Any], given: Arrays) -> tuple[GearStage, Batch]:
    config = meta["config"]
    tokenizer_settings = tokenizer_config(
        config["family"], config["image_size"], config["entropy_loss_ratio"], config["vq"]
    )
    optimizer = {
        "warmup_steps": config["warmup_steps"],
        "eps": config["adam_epsilon"],
        "weight_decay": config["adam_weight_decay"],
    }
    run_config = RunConfig(
        tokenizer=tokenizer_settings,
        ar=ARConfig(
            **config["ar"],
            vocab_size=tokenizer_settings.num_codes,
            block_size=(config["image_size"] // config["ds"]) ** 2,
            token_dropout_p=0.0,
            resid_dropout_p=0.0,
            ffn_dropout_p=0.0,
        ),
        loss=LossConfig(**config.get("loss_overrides", {})),
        gear=GearConfig(
            temperature=config["temperature"],
            tap_layer=config["encoder_depth"],
            projector_dim=config["projector_dim"],
            align_coeff=config["proj_coeff"],
            tokenizer_align_coeff=config["vae_align_proj_coeff"],
            straight_through=config["straight_through"],
        ),
        stages={
            "e2e": StageConfig(
                batch_size=config["B"],
                max_grad_norm=config["max_grad_norm"],
                ema_decay=config["ema_decay"],
                tokenizer=OptimizerConfig(lr=config["vq_lr"], **optimizer),
                discriminator=OptimizerConfig(lr=config["disc_lr"], **optimizer),
                ar=OptimizerConfig(lr=config["ar_lr"], **optimizer),
            )
        },
    )
    perceptual, critic = StandInPerceptual(given), PatchDiscriminator(**config["disc"])
    tokenizer, ar = build_tokenizer(tokenizer_settings), ClassConditionalAR(run_config.ar)
    ar.label_dropout = 0.0
    projectors = Projectors(config["ar"]["dim"], config["projector_dim"], config["z_dims"])
    losses = LossHead(run_config.loss, critic, perceptual)
    named = {"vq": tokenizer, "ar": ar, "projectors": projectors, "discriminator": critic, "perceptual": perceptual}
    for name, module in named.items():
        prefix = f"w.{name}."
        module.load_state_dict(
            {
                key.removeprefix(prefix): torch.from_numpy(value)
                for key, value in given.items()
                if key.startswith(prefix)
            }
        )
    teachers = [
        torch.from_numpy(given[f"in.teacher_{i}"]).to(torch.get_default_dtype()) for i in range(len(config["z_dims"]))
    ]
    targets = [spatial_norm(teacher, config["spnorm"], config["spnorm_alpha"]) for teacher in teachers]
    stage = GearStage(
        run_config,
        torch.device("cpu"),
        tokenizer=tokenizer,
        ar=ar,
        projectors=projectors,
        losses=losses,
        targets=lambda images_u8, ids: targets,
    )
    images, labels = torch.from_numpy(given["in.image_uint8"]), torch.from_numpy(given["in.labels"])
    return stage, Batch(images, labels, torch.arange(len(labels)))


def _first_step(meta: dict[str, Any], given: Arrays, want: Arrays) -> list[Result]:
    """Float32: codes, distances, taps and gradients of the first iteration."""
    stage, batch = build(meta, given)
    recorder, seen = EvidenceRecorder(stage), _watch(stage)
    stage.micro_step(batch, last=True, diagnose=False)
    got = {f"out.step1.{name}": value for name, value in seen.items()}
    got |= {f"out.step1.grad.{name}": grad for name, grad in recorder.grads.items()}
    results = []
    for name, value in sorted(want.items()):
        if not name.startswith("out.step1."):
            continue
        ours = got[name.removesuffix(".first_image").replace("logits_first", "logits")]
        if name.endswith(".first_image"):
            ours = ours[:1]
        if name.endswith("logits_first"):
            ours = ours[:, : value.shape[1]]
        if name == "out.step1.indices":
            results.append(check_equal(name, ours, value))
        else:
            limits = meta["tolerance"]["step1_grads" if ".grad." in name else "step1_tensors"]
            results.append(check(name, ours, value, **limits))
    return results


def _watch(stage: GearStage) -> dict[str, Tensor]:
    """What passes through the modules in one iteration, under the names of the golden file."""
    seen: dict[str, Tensor] = {}
    ar = stage.ar
    tap, next_token_loss = ar.tap, ar.next_token_loss

    def watched_tap(tokens: SoftCodes, *args: Any) -> Tensor:
        seen["vq_phase.ar_input"] = tokens.probs().detach()
        seen["vq_phase.hidden"] = tap(tokens, *args)
        return seen["vq_phase.hidden"]

    def watched_loss(code_ids: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        loss, hidden = next_token_loss(code_ids, *args)
        seen["ar_phase.hidden"] = hidden.detach()
        return loss, hidden

    def note_head_input(norm: nn.Module, inputs: Any, read: Tensor) -> None:
        # The step itself never holds the logits; these are what its loss is the cross-entropy of.
        seen["ar_phase.logits"] = F.linear(read, ar.output.weight).detach()

    def note_code(module: nn.Module, inputs: Any, code: Any) -> None:
        seen["recon"], seen["indices"], seen["d"] = code.recon, code.code_ids, code.code_distances
        images = len(inputs[0])
        posterior = torch.softmax(-code.code_distances / stage.config.gear.temperature, -1)
        seen["soft"] = posterior.view(images, -1, posterior.shape[-1])

    stage.tokenizer.register_forward_hook(note_code)
    ar.norm.register_forward_hook(note_head_input)
    ar.tap, ar.next_token_loss = watched_tap, watched_loss  # type: ignore[method-assign, assignment]
    return seen


def _all_steps(meta: dict[str, Any], given: Arrays, want: Arrays) -> list[Result]:
    """Float64: logs, isolation evidence and states over all iterations."""
    results: list[Result] = []
    with default_dtype(torch.float64):
        stage, batch = build(meta, given)
        initial = {key: _clone(stage.modules[key]) for key in MODULES}
        recorder = EvidenceRecorder(stage)
        for step in range(1, meta["steps"] + 1):
            logs = stage.micro_step(batch, last=True, diagnose=True)
            stage.finish_update()
            results += _check_logs(meta, logs, step)
            results += _check_states(meta, stage, initial, want, step)
    return results + _check_evidence(meta, recorder.evidence)


def _check_logs(meta: dict[str, Any], logs: Logs, step: int) -> list[Result]:
    want = next(entry for entry in meta["logs"] if entry["step"] == step)
    limits = meta["tolerance"]["logs"]
    return [
        check(f"logs step {step} {name}", float(logs[name]), value, **limits)
        for name, value in want.items()
        if name != "step"
    ]


def _check_states(
    meta: dict[str, Any], stage: GearStage, initial: dict[str, dict[str, Tensor]], want: Arrays, step: int
) -> list[Result]:
    results = []
    live_of = {"ema": "ar", "vq_ema": "vq"}
    averages = {name: average.module for name, average in stage.averages.items()}
    for name, module in {**stage.modules, **averages}.items():
        prefix = f"after{step}.{name}."
        stored = {key.removeprefix(prefix): value for key, value in want.items() if key.startswith(prefix)}
        if not stored:
            continue
        atol = meta["tolerance"]["after_abs"][f"after{step}.{live_of.get(name, name)}"]
        state, most = module.state_dict(), _sample_size(meta, averaged=name in live_of)
        for key, value in stored.items():
            sample = _strided(state[key], most)
            if np.issubdtype(value.dtype, np.integer):
                results.append(check_equal(prefix + key, sample, value))
            else:
                results.append(check(prefix + key, sample, value, atol=atol))
        if name in initial:
            results += _check_update(meta, f"after{step}.{name}", module, initial[name], stored)
    return results


def _check_update(
    meta: dict[str, Any], where: str, module: nn.Module, initial: dict[str, Tensor], stored: Arrays
) -> list[Result]:
    """The relative error of what the optimizer did, over all stored samples of the parameters."""
    moved, error, size, most = dict(module.named_parameters()), 0.0, 0.0, _sample_size(meta, averaged=False)
    for key, value in stored.items():
        if key in moved:
            start = _strided(initial[key], most).numpy()
            golden = value.astype(np.float64) - start
            error += float(np.square(_strided(moved[key].detach(), most).numpy() - start - golden).sum())
            size += float(np.square(golden).sum())
    if meta["update_sizes"].get(where, 0.0) == 0.0:
        return []
    limit = meta["tolerance"]["after_relative_update"]["max"][where]
    relative = math.sqrt(error / size)
    return [Result(f"{where} relative update", relative, limit, relative <= limit)]


def _check_evidence(meta: dict[str, Any], evidence: list[dict[str, Any]]) -> list[Result]:
    limits, results = meta["tolerance"]["logs"], []
    ours = {(entry["step"], entry["phase"]): entry for entry in evidence}
    for want in meta["evidence"]:
        where = f"evidence step {want['step']} {want['phase']}"
        got = ours[want["step"], want["phase"]]
        results.append(check(f"{where} loss", got["loss"], want["loss"], **limits))
        for module, facts in want["modules"].items():
            for name, value in facts.items():
                mine, what = got["modules"][module][name], f"{where} {module} {name}"
                if value is None or isinstance(value, int):
                    results.append(Result(what, 0.0, 0.0, mine == value, f"{mine}, expected {value}"))
                else:
                    results.append(check(what, mine, value, **limits))
    return results


def _sample_size(meta: dict[str, Any], *, averaged: bool) -> int:
    """Elements of a tensor that are stored at most; the notes say "more than 64 elements (32 for ..."."""
    found = re.search(r"more than (\d+) elements \((\d+) for", " ".join(meta.get("notes", [])))
    live, average = found.groups() if found else ("64", "32")
    return int(average if averaged else live)


def _strided(tensor: Tensor, most: int) -> Tensor:
    """The stored sample of a tensor: flattened, every ceil(numel / most)-th element when there are more than `most`."""
    flat = tensor.detach().flatten()
    return flat[:: math.ceil(flat.numel() / most)] if flat.numel() > most else tensor.detach()


def _clone(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
