"""The Inception network of pytorch-fid, on torchvision's modules: the FID of COCO and of tokenizer papers.

It is not torchvision's own Inception and not the TensorFlow graph of the ADM evaluator: the three give different
distances. What differs from torchvision's: average pools that leave out the padding, a maximum in the place of one of
them (`Mixed_7c`), 1008 classes, and an input in [0, 1] that the network itself enlarges to 299 px without antialiasing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Inception3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE

from harness.contract.errors import MissingAsset

Array = npt.NDArray[Any]

INPUT_SIZE = 299
NUM_CLASSES = 1008
WEIGHTS = "fid-inception"


class FIDInception(nn.Module):
    """images_01 (n, 3, H, W) in [0, 1] -> features (n, 2048) float32. Always in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Inception3(num_classes=NUM_CLASSES, aux_logits=False, init_weights=False)
        self.network.Mixed_7c.__class__ = MaxPooledInceptionE  # the same parameters, another forward
        for block in self.network.children():
            if isinstance(block, InceptionA | InceptionC | InceptionE) and not isinstance(block, MaxPooledInceptionE):
                block.branch_pool.register_forward_pre_hook(_leave_out_padding)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: Path) -> FIDInception:
        """With the weights of `pt_inception-2015-12-05-6726825d.pth`, loaded strictly.

        Raises MissingAsset when the file does not hold them.
        """
        network = cls()
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            counters = {key: value for key, value in network.network.named_buffers() if key.endswith("batches_tracked")}
            network.network.load_state_dict(
                {**counters, **weights}
            )  # older files lack the counters, which nobody reads
        except Exception as error:  # torch raises half a dozen kinds for a file that is none
            raise MissingAsset(
                f"{path}: does not hold the FID Inception weights ({type(error).__name__}: {str(error)[:200]}); "
                f"fetch them again: harness assets pull {WEIGHTS}"
            ) from error
        return network

    def train(self, mode: bool = True) -> FIDInception:
        """Stays in evaluation mode: its batch normalisation must use the stored statistics."""
        return super().train(False)

    def forward(self, images_01: Tensor) -> Tensor:
        return self.blocks(images_01)[-1].mean(dim=(2, 3))

    def blocks(self, images_01: Tensor) -> list[Tensor]:
        """Feature maps of 64, 192, 768 and 2048 channels."""
        size = (INPUT_SIZE, INPUT_SIZE)
        x = 2.0 * F.interpolate(images_01.float(), size=size, mode="bilinear", align_corners=False) - 1.0
        n = self.network
        block64 = n.maxpool1(n.Conv2d_2b_3x3(n.Conv2d_2a_3x3(n.Conv2d_1a_3x3(x))))
        block192 = n.maxpool2(n.Conv2d_4a_3x3(n.Conv2d_3b_1x1(block64)))
        block768 = n.Mixed_6a(n.Mixed_5d(n.Mixed_5c(n.Mixed_5b(block192))))
        block768 = n.Mixed_6e(n.Mixed_6d(n.Mixed_6c(n.Mixed_6b(block768))))
        return [block64, block192, block768, n.Mixed_7c(n.Mixed_7b(n.Mixed_7a(block768)))]


class FIDFeatures:
    """Arrays in, features out, on the GPU where there is one, in float32."""

    def __init__(self, path: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.allow_tf32 = False  # its default rounds convolutions to 10 bits
        self.network = FIDInception.from_file(path).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3), uint8 or float in [0, 1] -> (n, 2048) float32."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float()
        features: Array = self.network(batch / 255.0 if images.dtype == np.uint8 else batch).cpu().numpy()
        return features


class MaxPooledInceptionE(InceptionE):
    """The last block takes the maximum where the others average: an oddity of the original graph."""

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(F.max_pool2d(x, kernel_size=3, stride=1, padding=1)),
        ]
        return torch.cat(branches, dim=1)


def _leave_out_padding(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Turn torchvision's 3 x 3 average, which counts the zeros around the map, into one over the map alone."""
    (average,) = inputs
    ones = torch.ones_like(average[:1, :1])
    share_inside = F.avg_pool2d(ones, kernel_size=3, stride=1, padding=1)
    return average / share_inside
