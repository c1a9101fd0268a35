"""CLIP ViT-B/32 as CLIPScore reads it: cosine between an image and its caption."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from harness.contract.errors import MissingAsset
from harness.metrics.clip_score import cosines

Array = npt.NDArray[Any]

INPUT_SIZE = 224
MAX_TOKENS = 77
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILES = {
    "clip-vit-b32-config": "config.json",
    "clip-vit-b32-weights": "model.safetensors",
    "clip-vit-b32-vocab": "vocab.json",
    "clip-vit-b32-merges": "merges.txt",
}
"""Asset -> its name in the model's repository on the hub."""


class ClipCosines:
    """Images and their captions -> cosines, in float32, on the GPU where there is one."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Load from the assets of `FILES`, by name. Raises MissingAsset when they are not a CLIP model."""
        from transformers import CLIPModel, CLIPTokenizer

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.TemporaryDirectory(prefix="clip-") as folder:
            try:
                for name, filename in FILES.items():
                    shutil.copyfile(files[name], Path(folder) / filename)
                self.model = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval().to(self.device)
                self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # the library raises many kinds for files that are not a model's
                raise MissingAsset(
                    f"{', '.join(FILES)}: are not the files of a CLIP model ({type(error).__name__}: {error}); fetch "
                    "them again: harness assets pull --benchmark coco"
                ) from error

    @torch.inference_mode()
    def __call__(self, images_u8: Array, captions: Sequence[str]) -> Array:
        """(n, H, W, 3) uint8 and n captions -> (n,) float64 cosines; captions beyond 77 tokens are cut."""
        text = self.tokenizer(
            list(captions), return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
        ).to(self.device)
        pixels = torch.from_numpy(np.stack([transform(image) for image in images_u8])).to(self.device)
        output = self.model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], pixel_values=pixels)
        return cosines(output.image_embeds.cpu().numpy(), output.text_embeds.cpu().numpy())


def transform(image_u8: Array) -> Array:
    """Square (H, H, 3) uint8 -> (3, 224, 224) float32: Pillow's bicubic, then CLIP's mean and deviation."""
    resized = Image.fromarray(image_u8).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255.0)
    normalised = (scaled - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
