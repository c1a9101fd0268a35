"""CLIP (arXiv:2103.00020) with both towers, as CLIPScore reads it: the cosine between an image and its caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gear.assets import find_asset
from harness.contract.errors import MissingAsset
from harness.metrics.clip_score import cosines

FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
MAX_TOKENS = 77
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def clip_files(source: str) -> list[str]:
    """The addresses that `gear.assets` finds of a model: a folder itself, or of hf://owner/name each of FILES."""
    return [f"{source}/{name}" for name in FILES] if source.startswith("hf://") else [source]


class ClipCosines:
    """Images and their captions -> cosines, in float32. ViT-B/32 takes 600 MB."""

    def __init__(self, source: str, device: torch.device, *, setting: str, batch_size: int = 32) -> None:
        """source: a folder with FILES, or hf://owner/name in the hub's cache. Raises MissingAsset."""
        from transformers import CLIPModel, CLIPTokenizer

        folder = _folder(source, setting)
        self.device, self.batch_size = device, batch_size
        with torch.random.fork_rng(devices=[]):  # the run's draws do not depend on what is watched
            self.model: Any = _loaded(CLIPModel, folder, setting).float().eval().requires_grad_(False).to(device)
        self.tokenizer: Any = _loaded(CLIPTokenizer, folder, setting)
        self.size = int(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, images_u8: npt.NDArray[np.uint8], captions: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, H, H, 3) uint8 and N captions -> (N,); captions are cut after 77 tokens."""
        parts = []
        for start in range(0, len(captions), self.batch_size):
            batch = slice(start, start + self.batch_size)
            pixels = torch.from_numpy(np.stack([transform(image, self.size) for image in images_u8[batch]]))
            parts.append(self._cosines(pixels.to(self.device), list(captions[batch])))
        return np.concatenate(parts)

    def _cosines(self, pixels: Tensor, captions: list[str]) -> npt.NDArray[np.float64]:
        tokens = self.tokenizer(captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        tokens = tokens.to(self.device)
        output = self.model(**tokens, pixel_values=pixels)
        return cosines(output.image_embeds.cpu().numpy(), output.text_embeds.cpu().numpy())


def transform(image_u8: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    """Square (H, H, 3) uint8 -> (3, size, size) float32: Pillow's bicubic, then CLIP's mean and deviation."""
    resized = Image.fromarray(image_u8).resize((size, size), Image.Resampling.BICUBIC)
    scaled = (np.asarray(resized, dtype=np.float32) / np.float32(255.0) - _MEAN) / _STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _folder(source: str, setting: str) -> Path:
    if not source.startswith("hf://"):
        return find_asset(source, purpose="a CLIPScore", setting=setting)
    try:
        found = [find_asset(file, purpose="a CLIPScore", setting=setting) for file in clip_files(source)]
    except MissingAsset:
        raise MissingAsset(
            f"a CLIPScore needs {source}, which is not on this machine; fetch it with: hf download "
            f"{source.removeprefix('hf://')} {' '.join(FILES)} (or name a folder: --set {setting}=DIR)"
        ) from None
    return found[0].parent


def _loaded(kind: Any, folder: Path, setting: str) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds for files that are not a model's
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise MissingAsset(
            f"{folder} holds no CLIP model that can be loaded ({reason}); "
            f"name a folder with {', '.join(FILES)}: --set {setting}=DIR."
        ) from None
