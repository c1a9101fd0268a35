"""Golden area `repa`: alignment targets and loss, teacher preprocessing and layers, dataset transforms."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gear.align import Projectors, alignment_loss, spatial_norm
from gear.data.transforms import adm_center_crop, center_crop, short_side_resize, to_array
from gear.teachers import FAMILIES
from gear.teachers.layers import patch_features, resample_position_table
from gear.teachers.preprocess import InputRule, preprocess
from gear.teachers.vit import ViTFamily
from tests.conformance.case import Result, Unsupported, check, check_equal, formula_value, leading, load_case

AREA = "repa"

Meta = dict[str, Any]
Arrays = dict[str, Tensor]
Checker = Callable[[Meta, Arrays], list[Result]]

CONSTANT_CHANNEL = re.compile(r"out\.constant_channel_(\w+)_alpha([\d.]+)")
LAYER_OUTPUT = re.compile(r"out\.(\w+)\.layer(-?\d+)")


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    checker = checker_of(meta, tensors)
    if checker is not None:
        return checker(meta, tensors)
    if "area" not in meta:
        return None
    raise Unsupported("a kind of case this checker does not know")


def checker_of(meta: Meta, tensors: Arrays) -> Checker | None:
    """The checker for a case, told by what the case holds."""
    case_fields = {field for case in meta.get("cases", []) for field in case}
    if "in.pred_0" in tensors:
        return check_alignment
    if "in.pos_embed" in tensors:
        return check_position_table
    if "mode" in case_fields:
        return check_spatial_norm
    if "encoder" in case_fields:
        return check_preprocessing
    if "in.image_hwc" in tensors:
        return check_transforms
    if any(LAYER_OUTPUT.fullmatch(name) for name in tensors):
        return check_layers
    return None


def check_spatial_norm(meta: Meta, tensors: Arrays) -> list[Result]:
    results = []
    for case in meta["cases"]:
        normed = spatial_norm(tensors["in.z"], case["mode"], case["alpha"])
        results.append(check(case["tensor"], normed, tensors[case["tensor"]], **meta["tolerance"]))
    for name, want in tensors.items():
        if constant := CONSTANT_CHANNEL.fullmatch(name):
            mode, alpha = constant[1], float(constant[2])
            normed = spatial_norm(tensors["in.z_constant_channel"], mode, alpha)  # type: ignore[arg-type]
            results.append(check(name, normed, want, **meta["tolerance"]))
    return results


def check_alignment(meta: Meta, tensors: Arrays) -> list[Result]:
    """The loss and its gradients from given predictions, then from projections of the hidden states."""
    limits = meta["tolerance"]
    count = sum(name.startswith("in.pred_") for name in tensors)
    targets = [tensors[f"in.target_{i}"] for i in range(count)]
    preds = [tensors[f"in.pred_{i}"].clone().requires_grad_() for i in range(count)]
    loss = alignment_loss(preds, targets)
    loss.backward()
    results = [check("out.loss", loss, tensors["out.loss"], **limits)]
    results += [check(f"grad.pred_{i}", p.grad, tensors[f"grad.pred_{i}"], **limits) for i, p in enumerate(preds)]

    projectors = build_projectors(tensors, count)
    with torch.no_grad():
        projected = projectors(tensors["in.hidden"])
        projected_loss = alignment_loss(projected, targets)
    results += [
        check(f"out.projected_{i}", p, tensors[f"out.projected_{i}"], **limits) for i, p in enumerate(projected)
    ]
    results.append(check("out.projected_loss", projected_loss, tensors["out.projected_loss"], **limits))
    return [*results, *check_prefixes(projectors, tensors, limits)]


@torch.no_grad()
def check_prefixes(projectors: Projectors, tensors: Arrays, limits: Meta) -> list[Result]:
    """Longer prefixes: with P conditioning slots the predictions of image tokens start at slot P - 1."""
    results = []
    for name, want in tensors.items():
        if found := re.fullmatch(r"out\.projected_cls(\d+)_(\d+)", name):
            hidden = tensors[f"in.hidden_cls{found[1]}"][:, int(found[1]) - 1 :]
            results.append(check(name, projectors(hidden)[int(found[2])], want, **limits))
    return results


def build_projectors(tensors: Arrays, count: int) -> Projectors:
    weights = {name.removeprefix("w."): tensor for name, tensor in tensors.items() if name.startswith("w.")}
    projector_dim, dim = weights["projs.0.0.weight"].shape
    projectors = Projectors(dim, projector_dim, [len(weights[f"projs.{i}.4.bias"]) for i in range(count)])
    projectors.load_state_dict(weights, strict=True)
    return projectors


def check_preprocessing(meta: Meta, tensors: Arrays) -> list[Result]:
    """Stored slices, and where given size, mean and standard deviation of the whole output."""
    limits = meta["tolerance"]
    results = []
    for case in meta["cases"]:
        name = case["tensor"]
        formula = re.fullmatch(r"formula image, size (\d+)", case["input"])
        images_u8 = formula_image(meta["formula_image"], int(formula[1])) if formula else tensors[case["input"]]
        pixels = preprocess(images_u8, input_rule(case["encoder"]))
        if "output_size" in case:
            results += [
                check(f"{name} size", tuple(pixels.shape), case["output_size"], atol=0.0),
                check(f"{name} mean", pixels.double().mean(), case["mean"], **limits),
                check(f"{name} std", pixels.double().std(), case["std"], **limits),
            ]
        results.append(check(name, stored_part(pixels, case["stored"], tensors[name]), tensors[name], **limits))
        corner = tensors.get(f"{name}.corner")
        if corner is not None:
            results.append(check(f"{name}.corner", leading(pixels, corner), corner, **limits))
    return results


def input_rule(family: str) -> InputRule:
    """How a family of teachers wants its images."""
    chosen = FAMILIES.get(family)
    if not isinstance(chosen, ViTFamily):
        raise Unsupported(f"the teacher family {family} is not built yet")
    return chosen.input


def formula_image(description: str, size: int) -> Tensor:
    """The uint8 image (1, 3, size, size) of "... value[c,y,x] = <formula in x, y and c>"."""
    side = torch.arange(size)
    variables = {"x": side[None, None, :], "y": side[None, :, None], "c": torch.arange(3)[:, None, None]}
    values = formula_value(description.partition("=")[2], variables)
    return values.expand(3, size, size).to(torch.uint8)[None]


def stored_part(pixels: Tensor, description: str, want: Tensor) -> Tensor:
    """The part a case keeps: the first images, or every s-th row and column."""
    stride = re.search(r"::(\d+), ::(\d+)", description)
    return pixels[:, :, :: int(stride[1]), :: int(stride[2])] if stride else pixels[: len(want)]


def check_position_table(meta: Meta, tensors: Arrays) -> list[Result]:
    results = []
    for name, want in tensors.items():
        if grid := re.fullmatch(r"out\.grid(\d+)", name):
            results.append(
                check(name, resample_position_table(tensors["in.pos_embed"], int(grid[1])), want, **meta["tolerance"])
            )
    return results


class ToyBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.l = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.l(x))


class ToyEncoder(nn.Module):
    """The encoder of the golden data: x + tanh(linear(x)) per block, then a layer norm."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        width = len(weights["norm.weight"])
        num_blocks = sum(name.endswith(".l.weight") for name in weights)
        self.blocks = nn.ModuleList(ToyBlock(width) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.load_state_dict(weights, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@torch.no_grad()
def check_layers(meta: Meta, tensors: Arrays) -> list[Result]:
    results = []
    for name, want in tensors.items():
        if case := LAYER_OUTPUT.fullmatch(name):
            family, layer = case[1], int(case[2])
            prefix = f"w.{family}."
            encoder = ToyEncoder({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
            got = patch_features(
                encoder,
                list(encoder.blocks),
                tensors[f"in.{family}.x"],
                layer=layer,
                num_special=input_rule(family).num_special,
            )
            results.append(check(name, got, want, **meta["tolerance"]))
    return results


def check_transforms(meta: Meta, tensors: Arrays) -> list[Result]:
    """Resizes and crops, exact to the level with the Pillow build that made the case."""
    size = meta["image_size"]
    image = Image.fromarray(tensors["in.image_hwc"].numpy())
    resized = {name: short_side_resize(image, size, resample=name) for name in ("bicubic", "bilinear")}
    codec_input = torch.from_numpy(to_array(center_crop(resized["bicubic"], size))).float() / 127.5 - 1.0
    return [
        check_equal("val_bicubic", to_array(center_crop(resized["bicubic"], size)), tensors["out.val_bicubic"]),
        check_equal("val_bilinear", to_array(center_crop(resized["bilinear"], size)), tensors["out.val_bilinear"]),
        check_equal("train_resized", to_array(resized["bicubic"]), tensors["out.train_resized_bicubic"]),
        check_equal("adm_crop", np.asarray(adm_center_crop(image, size)), tensors["out.adm_center_crop"]),
        check("codec_input", codec_input, tensors["out.codec_input"], atol=1e-6),
    ]
