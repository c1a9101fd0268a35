"""Golden area `ar`: the autoregressive transformers and the rotary table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gear.ar.config import ARConfig, TextARConfig
from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.rope import rotary_table, rotate
from gear.ar.t2i import TextCondition, TextToImageAR
from tests.conformance.case import Result, check, check_equal, load_case

AREA = "ar"

Arrays = dict[str, Tensor]


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if "rotated_with" in meta:
        return check_rotary(meta, tensors)
    if "caption_dim" in meta.get("config", {}):
        return check_text_to_image(meta, tensors, text_weights(path, tensors))
    if "config" not in meta:
        return None
    return check_class_conditional(meta, tensors)


def check_rotary(meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    limits = meta["tolerance"]["forward"]

    def table(config: dict[str, int]) -> Tensor:
        return rotary_table(config["grid"], config["head_dim"], config["cls_token_num"], meta["rope_base"])

    results = []
    for config in meta["configs"]:
        name = f"out.grid{config['grid']}_hd{config['head_dim']}_cls{config['cls_token_num']}"
        results.append(check(name, table(config), tensors[name], **limits))
    rotated = rotate(tensors["in.x"], table(meta["rotated_with"]))
    return [*results, check("out.rotated", rotated, tensors["out.rotated"], **limits)]


def check_class_conditional(meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    ar = build(meta, tensors)
    return [
        *check_training(ar, tensors["in.cond_idx"], meta, tensors),
        *check_taps(ar, meta, tensors),
        *check_evaluation(ar, meta, tensors),
        *check_cached(ar, meta, tensors),
    ]


def build(meta: dict[str, Any], tensors: Arrays) -> ClassConditionalAR:
    """The case's model with its weights; label dropout off, the table keeping its null row."""
    ar = ClassConditionalAR(ARConfig(**meta["config"]))
    ar.load_state_dict(weights_of(tensors), strict=True)
    ar.label_dropout = 0.0
    return ar


def weights_of(tensors: Arrays) -> Arrays:
    return {key.removeprefix("w."): tensor for key, tensor in tensors.items() if key.startswith("w.")}


def text_weights(path: Path, tensors: Arrays) -> Arrays:
    """The case's weights; a prefix case shares those of its causal sibling."""
    own = weights_of(tensors)
    if own:
        return own
    arrays = load_case(path.with_name(path.name.replace("prefix", "causal")))[1]
    return weights_of({key: torch.from_numpy(array) for key, array in arrays.items()})


def check_training(ar: Trunk, condition: Any, meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    """Train mode on hard tokens: logits, cross-entropy, taps, and every stored gradient of the cross-entropy."""
    limits, grad_limits = meta["tolerance"]["forward"], meta["tolerance"]["grad"]
    tokens = tensors["in.idx"]
    ar.train()
    ar.zero_grad()
    logits, _ = ar(tokens[:, :-1], condition)
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    loss.backward()
    results = [
        check("out.train.hard.logits", logits, tensors["out.train.hard.logits"], **limits),
        check("out.train.hard.ce", loss, tensors["out.train.hard.ce"], **limits),
    ]
    for tap in meta["taps"]:
        _, hidden = ar(tokens[:, :-1], condition, tap_layer=tap)
        results.append(check(f"hidden_{tap}", hidden, tensors[f"out.train.hard.hidden_{tap}"], **limits))
    grads = {name: parameter.grad for name, parameter in ar.named_parameters() if parameter.grad is not None}
    total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]))
    for name, want in tensors.items():
        if name.startswith("grad.ce."):
            key = name.removeprefix("grad.ce.")
            results.append(check(name, total if key == "total_norm" else grads[key], want, **grad_limits))
    return results


def check_taps(ar: ClassConditionalAR, meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    """Eval mode on soft tokens, stopped at the tap: the tap, and its pull on tokens and embedding."""
    limits, grad_limits = meta["tolerance"]["forward"], meta["tolerance"]["grad"]
    ar.eval()
    results = []
    for tap in meta["taps"]:
        ar.zero_grad()
        soft = tensors["in.soft"].clone().requires_grad_()
        hidden = ar.tap(soft[:, :-1], tensors["in.cond_idx"], tap)
        (hidden * tensors["in.proj"]).sum().backward()
        embedding_grad = ar.tok_embeddings.weight.grad
        results += [
            check(f"out.eval.soft.hidden_{tap}", hidden, tensors[f"out.eval.soft.hidden_{tap}"], **limits),
            check(f"grad.tap_{tap}.soft", soft.grad, tensors[f"grad.tap_{tap}.soft"], **grad_limits),
            check(
                f"grad.tap_{tap}.tok", embedding_grad, tensors[f"grad.tap_{tap}.tok_embeddings.weight"], **grad_limits
            ),
        ]
    return results


@torch.no_grad()
def check_evaluation(ar: ClassConditionalAR, meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    limits = meta["tolerance"]["forward"]
    labels = tensors["in.cond_idx"]
    ar.eval()
    got = {
        "out.eval.hard.logits": ar(tensors["in.idx"][:, :-1], labels)[0],
        "out.eval.soft.logits": ar(tensors["in.soft"][:, :-1], labels)[0],
        "out.label_embed.plain": ar.embed_condition(labels),
        "out.label_embed.forced": ar.embed_condition(labels, drop_ids=tensors["in.force_drop"]),
        "out.freqs_cis": ar.rotary_table,
    }
    return [check(name, tensor, tensors[name], **limits) for name, tensor in got.items()]


@torch.no_grad()
def check_cached(ar: ClassConditionalAR, meta: dict[str, Any], tensors: Arrays) -> list[Result]:
    """Prefill, then one token at a time: logits, and the first block's cache after the roll-out."""
    limits = meta["tolerance"]["forward"]
    tokens = tensors["in.idx"]
    ar.eval()
    cache = ar.new_cache(len(tokens))
    normed = [ar.prefill(tensors["in.cond_idx"], cache)]
    normed += [ar.decode(tokens[:, k], ar.num_cond + k, cache) for k in range(tokens.shape[1] - 1)]
    logits = ar.logits_of(torch.stack(normed, dim=1))
    first = cache.layer(0)
    return [
        check("out.cached.logits", logits, tensors["out.cached.logits"], **limits),
        check("out.cached.k_layer0", first.keys, tensors["out.cached.k_layer0"], **limits),
        check("out.cached.v_layer0", first.values, tensors["out.cached.v_layer0"], **limits),
    ]


def check_text_to_image(meta: dict[str, Any], tensors: Arrays, weights: Arrays) -> list[Result]:
    limits = meta["tolerance"]["forward"]
    ar = TextToImageAR(TextARConfig(**meta["config"]))
    ar.load_state_dict(weights, strict=True)
    captions = TextCondition(features=tensors["in.cond_emb"], mask=tensors["in.text_mask"])
    unmasked = TextCondition(features=tensors["in.cond_emb"])
    results = check_training(ar, captions, meta, tensors)

    ar.eval()
    hard, soft = tensors["in.idx"][:, :-1], tensors["in.soft"][:, :-1]
    with torch.no_grad():
        got = {
            "out.eval.hard.logits": ar(hard, captions)[0],
            "out.eval.soft.logits": ar(soft, captions)[0],
            "out.eval.nomask.logits": ar(hard, unmasked)[0],
            "cached logits": cached_logits(ar, hard, captions),
        }
        ar.copy_image_stream_to_text()
        got["out.eval.text_copied.logits"] = ar(hard, captions)[0]
    predicted = tensors["out.eval.hard.logits"][:, ar.num_cond - 1 :]
    results += [check(name, logits, tensors.get(name, predicted), **limits) for name, logits in got.items()]
    mask = ar.attention_mask(captions, tensors["out.mask"].shape[-1])
    return [*results, check_equal("out.mask", mask, tensors["out.mask"])]


def cached_logits(ar: Trunk, tokens: Tensor, condition: Any) -> Tensor:
    """Prefill, then one token at a time: the logits (B, n + 1, K) of image tokens 0 .. n."""
    cache = ar.new_cache(len(tokens))
    normed = [ar.prefill(condition, cache)]
    normed += [ar.decode(tokens[:, k], ar.num_cond + k, cache) for k in range(tokens.shape[1])]
    return ar.logits_of(torch.stack(normed, dim=1))
