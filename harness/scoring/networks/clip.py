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

from harness.contract.errors import MissingAsset
from harness.metrics.clip_score import cosines

Array = npt.NDArray[Any]

FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
"""The files of a model's folder, named as on the hub."""
MAX_TOKENS = 77
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipCosines:
    """Images and their captions -> cosines, in float32. ViT-B/32 takes 600 MB."""

    def __init__(self, folder: Path, device: torch.device, *, fix: str, batch_size: int = 32) -> None:
        """Load a model.

        Args:
            folder: with FILES.
            device: where it runs.
            fix: what to do about a folder without a CLIP model, the end of a sentence.
            batch_size: images of one forward pass.
        Raises:
            MissingAsset: the folder holds no CLIP model.
        """
        from transformers import CLIPModel, CLIPTokenizer

        self.device, self.batch_size = device, batch_size
        with torch.random.fork_rng(devices=[]):  # monitoring must not change the random draws of a training run
            self.model: Any = _loaded(CLIPModel, folder, fix).float().eval().requires_grad_(False).to(device)
        self.tokenizer: Any = _loaded(CLIPTokenizer, folder, fix)
        self.size = int(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, images_u8: Array, captions: Sequence[str]) -> Array:
        """(N, H, H, 3) uint8 and N captions -> (N,) float64; captions are cut after 77 tokens."""
        parts = []
        for start in range(0, len(captions), self.batch_size):
            batch = slice(start, start + self.batch_size)
            pixels = torch.from_numpy(np.stack([transform(image, self.size) for image in images_u8[batch]]))
            parts.append(self._cosines(pixels.to(self.device), list(captions[batch])))
        return np.concatenate(parts)

    def _cosines(self, pixels: Tensor, captions: list[str]) -> Array:
        tokens = self.tokenizer(captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        output = self.model(**tokens.to(self.device), pixel_values=pixels)
        return cosines(output.image_embeds.cpu().numpy(), output.text_embeds.cpu().numpy())


def transform(image_u8: Array, size: int) -> Array:
    """Square (H, H, 3) uint8 -> (3, size, size) float32: Pillow's bicubic, then CLIP's mean and deviation."""
    resized = Image.fromarray(image_u8).resize((size, size), Image.Resampling.BICUBIC)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255.0)
    normalised = (scaled - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _loaded(kind: Any, folder: Path, fix: str) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds of errors for wrong files
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise MissingAsset(f"{folder} holds no CLIP model that can be loaded ({reason}); {fix}") from None
