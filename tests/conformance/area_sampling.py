"""Golden area `sampling`: filtering, roll-outs of the AR models, and the conversion to stored pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gear.ar.config import ARConfig, TextARConfig
from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.sampling.draws import Draw, most_likely, multinomial
from gear.sampling.filters import filtered_probs
from gear.sampling.pixels import resize, to_u8, to_u8_rounded
from gear.sampling.rollout import SamplingOptions, Trace, roll_out
from tests.conformance.area_ar import text_weights, weights_of
from tests.conformance.case import Result, check, check_equal, load_case, to_numpy

AREA = "sampling"

IMAGENET_CLASSES = 1000
"""What the reference's sampler draws labels from, where a case does not say otherwise."""

Meta = dict[str, Any]
Arrays = dict[str, Tensor]


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if "in.logits" in tensors:
        return check_filtering(meta, tensors)
    if "in.decoded" in tensors:
        return check_pixels(meta, tensors)
    if "caption_dim" in meta.get("config", {}):
        return check_text_to_image(path, meta, tensors)
    if "in.cond" in tensors:
        return check_class_conditional(meta, tensors)
    return None


def check_filtering(meta: Meta, tensors: Arrays) -> list[Result]:
    results = []
    for case in meta["cases"]:
        name = f"out.case{case['i']}.probs"
        probs = filtered_probs(tensors[case["input"]], case["temperature"], case["top_k"], case["top_p"])
        results.append(check(name, probs, tensors[name], **meta["tolerance"]["probs"]))
    return results


def check_class_conditional(meta: Meta, tensors: Arrays) -> list[Result]:
    ar = ClassConditionalAR(ARConfig(**meta["config"])).eval()
    ar.load_state_dict(weights_of(tensors), strict=True)
    return check_roll_outs(ar, tensors["in.cond"], meta, tensors)


def check_text_to_image(path: Path, meta: Meta, tensors: Arrays) -> list[Result]:
    """Roll-outs, and the attention mask that the whole of each would have in a single pass."""
    ar = TextToImageAR(TextARConfig(**meta["config"])).eval()
    ar.load_state_dict(text_weights(path, tensors), strict=True)
    null = TextCondition(features=tensors["in.uncond_emb"], mask=tensors["in.uncond_mask"])
    captions = TextCondition(features=tensors["in.cond_emb"], mask=tensors["in.cond_mask"], null=null)
    results = check_roll_outs(ar, captions, meta, tensors)
    for case in meta["cases"]:
        name = f"out.{case['name']}.causal_mask"
        if name in tensors:
            rows = ar.with_null(captions) if case["kwargs"]["cfg_scale"] > 1 else captions
            mask = ar.attention_mask(rows, tensors[name].shape[-1])
            results.append(check_equal(name, mask[:, 0], tensors[name]))
    return results


def check_roll_outs(ar: Trunk, condition: Any, meta: Meta, tensors: Arrays) -> list[Result]:
    results = []
    for case in meta["cases"]:
        name = f"out.{case['name']}"
        tokens, trace = roll_out_case(ar, condition, case, meta["max_new_tokens"])
        results.append(check_equal(f"{name}.tokens", tokens, tensors[f"{name}.tokens"]))
        for key, steps in (("logits", trace.logits), ("probs", trace.probs)):
            if f"{name}.{key}" in tensors:
                limits = meta["tolerance"][key]
                results.append(check(f"{name}.{key}", torch.stack(steps, dim=1), tensors[f"{name}.{key}"], **limits))
    return results


def roll_out_case(ar: Trunk, condition: Any, case: Meta, num_tokens: int) -> tuple[Tensor, Trace]:
    """Run a case's options; its seed, where it has one, is that of the global generator."""
    options = dict(case["kwargs"])
    draw: Draw = multinomial if options.pop("sample_logits") else most_likely
    if case.get("manual_seed") is not None:
        torch.manual_seed(case["manual_seed"])
    trace = Trace()
    sampling = SamplingOptions(**options)
    return roll_out(ar, condition, num_tokens=num_tokens, options=sampling, draw=draw, trace=trace), trace


def check_pixels(meta: Meta, tensors: Arrays) -> list[Result]:
    decoded = tensors["in.decoded"]
    resized = resize(decoded, meta["eval_size"])
    results = [
        check_levels("out.uint8_nhwc", to_u8(decoded), tensors),
        check("out.resized_float", resized, tensors["out.resized_float"], **meta["tolerance"]["resized_float"]),
        check_levels("out.resized_uint8_nhwc", to_u8(resized), tensors),
        check_levels("out.coco_path_uint8_nhwc", to_u8_rounded(decoded), tensors),
    ]
    for name, want in tensors.items():
        if stream := re.fullmatch(r"out\.labels_seed(\d+)_world(\d+)_rank(\d+)", name):
            seed, world_size, rank = map(int, stream.groups())
            generator = torch.Generator().manual_seed(seed * world_size + rank)
            classes = meta.get("num_classes", IMAGENET_CLASSES)
            draws = [torch.randint(0, classes, want.shape[1:], generator=generator) for _ in want]
            results.append(check_equal(name, torch.stack(draws), want))
    return results


def check_levels(name: str, got: Tensor, tensors: Arrays) -> Result:
    """At most one level apart, on at most a thousandth of the values."""
    difference = (to_numpy(got).astype(int) - to_numpy(tensors[name]).astype(int)).ravel()
    share, largest = float((difference != 0).mean()), int(abs(difference).max())
    return Result(name, share, 1e-3, share <= 1e-3 and largest <= 1, f"largest difference {largest}")
