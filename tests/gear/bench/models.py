"""Models as users have them, with the image size and the conditions of the real benchmarks, and hardly any width."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gear.ar.checkpoints import build_ar
from gear.config import RunConfig
from gear.tokenizers import build_tokenizer
from tests.gear import tiny

TEXT_WIDTH = 16


@cache
def config(
    kind: str = "c2i", *, image_size: int = 256, num_classes: int = 1000, codes: int = 16, downsample: int = 16
) -> RunConfig:
    """One token per 16 px, as published. kind: "c2i" or "t2i"."""
    values: dict[str, Any] = copy.deepcopy(tiny.VALUES)
    levels = downsample.bit_length()
    values["data"] |= {"image_size": image_size, "num_classes": num_classes}
    values["tokenizer"] |= {
        **{name: [1] * levels for name in ("encoder_ch_mult", "decoder_ch_mult")},
        "codebook_size": codes,
    }
    if kind == "t2i":
        values["text"] = {"name": "qwen3", "dim": TEXT_WIDTH, "max_length": 6}
        values["stages"]["t2i"] = values["stages"]["ar"]
    return RunConfig.from_dict(values)


def write_model(path: Path, run: RunConfig, *, parts: tuple[str, ...] = ("vq", "ar"), seed: int = 0) -> Path:
    """What `gear train` leaves when it has finished, with random weights. parts: "vq" (the tokenizer), "ar"."""
    torch.manual_seed(seed)
    text = run.text is not None
    built = {"vq": build_tokenizer(run.tokenizer), "ar": build_ar(run.text_ar if text else run.class_ar)}
    content = {name: built[name].state_dict() for name in parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"config": run.to_dict(), "phase": "t2i" if text else "ar", "steps": 1, **content}, path)
    return path


def write_published(path: Path, run: RunConfig, *, seed: int = 0, **settings: Any) -> Path:
    """A released text-to-image file: averaged weights, `args`, steps; no tokenizer."""
    torch.manual_seed(seed)
    ar = build_ar(run.text_ar).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"ema": ar, "args": settings, "steps": 390625}, path)
    return path


def write_encoder(folder: Path, width: int = TEXT_WIDTH) -> Path:
    """A tiny Qwen3 as its own library writes it."""
    from transformers import Qwen3Config, Qwen3Model

    from tests.gear import tiny_text

    torch.manual_seed(0)
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2}
    Qwen3Model(Qwen3Config(vocab_size=len(tiny_text.tokenizer()), **sizes, **heads)).save_pretrained(folder)
    tiny_text.tokenizer().save_pretrained(folder)
    return folder


def in_hub_cache(cache_dir: Path, repo: str, source: Path, commit: str = "c0ffee" * 6 + "c0ff") -> Path:
    """Put a file or folder into a hub cache as the client does: blobs, and a snapshot of links to them."""
    root = cache_dir / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    files = [source] if source.is_file() else sorted(source.iterdir())
    for number, file in enumerate(files):
        blob = root / "blobs" / f"{number:064d}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    return snapshot


def damaged(path: Path, source: Path) -> Path:
    """A copy with one bit of its last tensor turned over."""
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path
