"""CLIP ViT-L/14 by open_clip: crops and colour prompts in, embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image

from benchmarks.geneval.colors import color_classifier, color_prompts, nearest_colors
from benchmarks.geneval.weights import fill

Array = npt.NDArray[Any]

ASSET = "clip-vit-l-14"
ARCHITECTURE = "ViT-L-14"
BATCH = 16


class ColorClassifier:
    """Classifies the colour of crops, one of ten, given the class name.

    Args:
        weights: CLIP's archive, or a recipe (`weights.py`).
        precision: "autocast" multiplies in half precision on a GPU, as the original does.
    """

    def __init__(self, weights: Path, device: str, precision: str = "float32") -> None:
        # OpenAI's weights were trained with the quick approximation of GELU.
        network: Any = open_clip.create_model(ARCHITECTURE, pretrained=None, force_quick_gelu=True)
        self.note = fill(network, weights, ASSET)
        self.network = network.to(device).eval()
        self.device = device
        self.tokenize: Any = open_clip.get_tokenizer(ARCHITECTURE)
        self.transform: Any = open_clip.image_transform(network.visual.image_size, is_train=False)
        half = precision == "autocast" and device.startswith("cuda")
        self.arithmetic = partial(torch.autocast, "cuda", torch.float16) if half else nullcontext
        self.classifiers: dict[str, Array] = {}

    def classify(self, name: str, crops: Sequence[Image.Image]) -> list[str]:
        """The colour of each crop of an object of class `name`."""
        if name not in self.classifiers:
            self.classifiers[name] = color_classifier(self._embed_texts(color_prompts(name)))
        batches = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
        embeddings = np.concatenate([self._embed_images(batch) for batch in batches])
        return nearest_colors(embeddings, self.classifiers[name])

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> Array:
        with self.arithmetic():
            embeddings: Array = (
                self.network.encode_text(self.tokenize(list(texts)).to(self.device)).float().cpu().numpy()
            )
        return embeddings

    @torch.inference_mode()
    def _embed_images(self, crops: Sequence[Image.Image]) -> Array:
        pixels = torch.stack([self.transform(crop) for crop in crops]).to(self.device)
        with self.arithmetic():
            embeddings: Array = self.network.encode_image(pixels).float().cpu().numpy()
        return embeddings
