"""Drawing image tokens: the engine of `gear sample` against a plain loop, and both against the memory bandwidth.

The plain form is written directly from the description of the reference and shares only the weights with gear:
guidance by a doubled batch, PyTorch's plain math attention over the whole cache with a mask, sorting for top-p,
multinomial. That kernel scales the whole cache of keys at every step, which is unnecessary: "plain, bare" is the same
loop with attention written out as two products.
The floor is the time to read the step's weights and the filled part of its cache once, at the bandwidth that a copy
reaches in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benches.measure import print_comparison, side_by_side
from gear.ar import ClassConditionalAR, ar_config
from gear.ar.packed import for_decoding
from gear.sampling.draws import PerImageDraw
from gear.sampling.rollout import RollOut, SamplingOptions, prefix_of

_COPY_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}


@click.command("sample")
@click.option("--size", "sizes", multiple=True, metavar="NAME", help="May be repeated.  [default: B; GPU: L and XL]")
@click.option("--batch", "batches", type=int, multiple=True, help="May be repeated.  [default: 8; GPU: 8, 16, 32]")
@click.option("--tokens", default=256, show_default=True, help="Image tokens; a square.")
@click.option("--cfg-scale", default=2.0, show_default=True, help="LlamaGen's published scale for B and L.")
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--top-k", default=0, show_default=True, help="0, as published, keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help="1, as published, keeps all.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), help="Of both forms.  [default: fp32; GPU: bf16]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]")
@click.option("--repeats", default=3, show_default=True)
def bench(
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    tokens: int,
    dtype: str | None,
    device: str | None,
    repeats: int,
    **sampling: float,
) -> None:
    """Token sampling with guidance: speed, and share of the floor."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device == "cuda"
    floating = torch.bfloat16 if (dtype or ("bf16" if on_gpu else "fp32")) == "bf16" else torch.float32
    options = SamplingOptions(**{**sampling, "top_k": int(sampling["top_k"])})
    bandwidth = copy_bandwidth(device)
    click.echo(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s, {torch.get_num_threads()} CPU threads, {floating}")
    for size in sizes or (("LlamaGen-L", "LlamaGen-XL") if on_gpu else ("LlamaGen-B",)):
        ar = random_model(size, tokens).to(device, floating)
        for batch in batches or ((8, 16, 32) if on_gpu else (8,)):
            compare(ar, size, batch, options, bandwidth, repeats)


def compare(
    ar: ClassConditionalAR, size: str, batch: int, options: SamplingOptions, bandwidth: float, repeats: int
) -> None:
    """One table of all forms, for one model and batch."""
    num_tokens, device = ar.config.block_size, ar.tok_embeddings.weight.device
    forms = {
        "plain": plain_form(ar, batch, options, math_attention),
        "plain, bare": plain_form(ar, batch, options, bare_attention),
        "gear": engine_form(ar, batch, options),
    }
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    timings = side_by_side(forms, repeats=repeats, synchronize=synchronize)
    floor_s = floor_bytes(ar, batch * (2 if options.guides else 1)) / bandwidth
    rates = {
        name: f"{timing.median_s / num_tokens * 1e3:.2f} ms/step, {floor_s / timing.median_s:.0%} of the floor"
        for name, timing in timings.items()
    }
    title = (
        f"{size}, {batch} images of {num_tokens} tokens, cfg {options.cfg_scale:g}, temperature "
        f"{options.temperature:g}, top-k {options.top_k}, top-p {options.top_p:g}; "
        f"floor {floor_s / num_tokens * 1e3:.2f} ms/step"
    )
    print_comparison(title, timings, baseline="plain", rates=rates)


def random_model(size: str, num_tokens: int) -> ClassConditionalAR:
    """Random weights, with a non-zero head, so that the distribution is not flat."""
    torch.manual_seed(0)
    ar = ClassConditionalAR(ar_config(size, block_size=num_tokens)).eval()
    nn.init.normal_(ar.output.weight, std=0.05)
    return ar


def engine_form(ar: ClassConditionalAR, batch: int, options: SamplingOptions) -> Callable[[], Tensor]:
    """The engine's roll-out as `gear sample` uses it: buffers, packed weights and recordings are made once.

    The prefill of every class is part of each call.
    """
    device = ar.tok_embeddings.weight.device
    on_gpu = device.type == "cuda"
    decoder = for_decoding(ar, compiled=on_gpu)
    draw = PerImageDraw(range(batch), ar.config.block_size, device)
    stride = 128 if on_gpu else None
    run = RollOut(decoder, images=batch, num_tokens=ar.config.block_size, options=options, draw=draw, stride=stride)

    def call() -> Tensor:
        labels = [*range(batch), *[ar.config.num_classes] * options.guides]
        prefixes = [prefix_of(decoder, torch.tensor([label], device=device)) for label in labels]
        return run(prefixes[:batch], prefixes[batch:])

    return call


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a copy moves, counting both reads and writes."""
    source = torch.zeros(_COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    best = float("inf")
    for _ in range(6):
        wait()
        started = time.perf_counter()
        target.copy_(source)
        wait()
        best = min(best, time.perf_counter() - started)
    return 2 * source.numel() / best


def floor_bytes(ar: ClassConditionalAR, rows: int) -> float:
    """Bytes that one roll-out must read: per step all weights except embedding tables, and the filled cache."""
    config, size = ar.config, ar.tok_embeddings.weight.element_size()
    weights = sum(p.numel() for p in ar.parameters()) - ar.tok_embeddings.weight.numel()
    weights -= ar.cls_embedding.embedding_table.weight.numel()
    slot = 2 * config.n_layer * config.num_kv_heads * config.head_dim * rows
    steps = config.block_size
    return size * (weights * steps + slot * steps * (steps + 1) / 2)


# -- the plain form ---------------------------------------------------------------------------------------------------


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(queries (B, H, 1, h), keys and values (B, H, slots, h), mask (slots,)) -> (B, H, 1, h)."""


def math_attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The attention that the reference selects."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask[None, None, None])


def bare_attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention as two products, without further work."""
    scores = q @ keys.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ values


def plain_form(ar: ClassConditionalAR, batch: int, options: SamplingOptions, attend: Attend) -> Callable[[], Tensor]:
    labels = torch.arange(batch, device=ar.tok_embeddings.weight.device)
    return lambda: plain_roll_out(ar, labels, options, attend)


@torch.inference_mode()
def plain_roll_out(ar: ClassConditionalAR, labels: Tensor, options: SamplingOptions, attend: Attend) -> Tensor:
    """(B, N) tokens, one forward of the doubled batch per token, eagerly."""
    config = ar.config
    guides = options.cfg_scale > 1
    rows = torch.cat([labels, torch.full_like(labels, config.num_classes)]) if guides else labels
    slots = -(-(1 + config.block_size) // 8) * 8
    weight = ar.tok_embeddings.weight
    shape = (len(rows), config.n_head, slots, config.head_dim)
    cache = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in ar.layers]
    mask = torch.ones(slots, slots, dtype=torch.bool, device=weight.device).tril()
    table = torch.as_tensor(ar.rotary_table)
    drawn: list[Tensor] = []
    x = ar.cls_embedding.embedding_table(rows)[:, None]
    for position in range(config.block_size):
        if position:
            fed = torch.cat([drawn[-1], drawn[-1]]) if guides else drawn[-1]
            x = F.embedding(fed, weight)
        for layer, (keys, values) in zip(ar.layers, cache, strict=True):
            x = _plain_block(layer, x, position, table[position], mask[position], keys, values, attend)
        logits = F.linear(_plain_norm(ar.norm, x), ar.output.weight)[:, -1].float()
        if guides:
            conditional, null = logits.chunk(2)
            logits = null + options.cfg_scale * (conditional - null)
        drawn.append(torch.multinomial(_plain_probs(logits, options), 1))
    return torch.cat(drawn, dim=1)


def _plain_block(
    layer: nn.Module,
    x: Tensor,
    position: int,
    turn: Tensor,
    mask: Tensor,
    keys: Tensor,
    values: Tensor,
    attend: Attend,
) -> Tensor:
    attention, feed = layer.attention, layer.feed_forward
    batch, heads, _, width = keys.shape
    qkv = F.linear(_plain_norm(layer.attention_norm, x), attention.wqkv.weight).view(batch, 1, 3, heads, width)
    q, k, v = qkv.unbind(2)
    q, k = _plain_rotation(q, turn), _plain_rotation(k, turn)
    keys[:, :, position], values[:, :, position] = k[:, 0], v[:, 0]
    mixed = attend(q.transpose(1, 2), keys, values, mask)
    x = x + F.linear(mixed.transpose(1, 2).reshape(batch, 1, -1), attention.wo.weight)
    y = _plain_norm(layer.ffn_norm, x)
    gate = F.silu(F.linear(y, feed.w1.weight)) * F.linear(y, feed.w3.weight)
    return x + F.linear(gate, feed.w2.weight)


def _plain_norm(norm: nn.Module, x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).type_as(x) * norm.weight


def _plain_rotation(x: Tensor, turn: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = turn[:, 0], turn[:, 1]
    first, second = pairs[..., 0], pairs[..., 1]
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.flatten(-2).type_as(x)


def _plain_probs(logits: Tensor, options: SamplingOptions) -> Tensor:
    logits = logits / max(options.temperature, 1e-5)
    if options.top_k > 0:
        logits = logits.masked_fill(logits < logits.topk(options.top_k).values[:, -1:], float("-inf"))
    if options.top_p < 1:
        ordered, order = logits.sort(descending=True)
        removed = ordered.softmax(-1).cumsum(-1) > options.top_p
        removed[:, 1:] = removed[:, :-1].clone()
        removed[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(removed).scatter(1, order, removed), float("-inf"))
    return logits.softmax(dim=-1)
