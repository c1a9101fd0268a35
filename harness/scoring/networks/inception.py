"""InceptionV3 as the FID of COCO and of tokenizer papers uses it: the pytorch-fid port of the 2015 TensorFlow graph.

The weights are the user's file `pt_inception-2015-12-05-6726825d.pth`. This is neither torchvision's Inception nor the
graph behind ADM's evaluator; the three give different distances. All convolutions are bias-free and followed by batch
normalisation and ReLU; module names are those of the weights file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contract.errors import MissingAsset

Array = npt.NDArray[Any]

WEIGHTS = "fid-inception"
"""The asset with the weights."""
NUM_FEATURES = 2048

Size = int | tuple[int, int]


class InceptionV3(nn.Module):
    """images_01 (B, 3, H, W) float32 in [0, 1] -> pool3 features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, pool_features=32)
        self.Mixed_5c = BlockA(256, pool_features=64)
        self.Mixed_5d = BlockA(288, pool_features=64)
        self.Mixed_6a = ReductionA(288)
        self.Mixed_6b = BlockB(768, width=128)
        self.Mixed_6c = BlockB(768, width=160)
        self.Mixed_6d = BlockB(768, width=160)
        self.Mixed_6e = BlockB(768, width=192)
        self.Mixed_7a = ReductionB(768)
        self.Mixed_7b = BlockC(1280, max_pool=False)
        self.Mixed_7c = BlockC(2048, max_pool=True)
        # Part of the weights file, so that it loads key for key; FID reads the features in front of it.
        self.fc = nn.Linear(NUM_FEATURES, 1008)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_file(cls, path: Path) -> InceptionV3:
        """The network with the weights of a file, which must hold every key.

        Raises:
            MissingAsset: the file does not hold these weights.
        """
        network = cls()
        # Older files lack the counters of the batch normalisations, which evaluation never reads.
        counters = {name: value for name, value in network.named_buffers() if name.endswith("num_batches_tracked")}
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict({**counters, **weights})
        except Exception as error:  # torch raises half a dozen kinds of errors for a wrong file
            raise MissingAsset(
                f"{path}: does not hold the FID Inception weights ({type(error).__name__}: {_shortened(error)}); "
                f"fetch them again: harness assets pull {WEIGHTS}"
            ) from error
        return network

    def train(self, mode: bool = True) -> InceptionV3:
        """Stay in evaluation mode: the batch normalisation must use the stored statistics."""
        return super().train(False)

    def forward(self, images_01: Tensor) -> Tensor:
        return self.blocks(images_01)[-1].mean(dim=(2, 3))

    def blocks(self, images_01: Tensor) -> list[Tensor]:
        """Feature maps of 64, 192, 768 and 2048 channels, before any pooling over positions."""
        x = self.preprocess(images_01)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        block64 = F.max_pool2d(x, kernel_size=3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(block64))
        block192 = F.max_pool2d(x, kernel_size=3, stride=2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(block192))))
        block768 = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        block2048 = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(block768)))
        return [block64, block192, block768, block2048]

    @staticmethod
    def preprocess(images_01: Tensor) -> Tensor:
        """Resize to 299 without antialiasing, as for the original graph, and map to [-1, 1]."""
        resized = F.interpolate(images_01.float(), size=(299, 299), mode="bilinear", align_corners=False)
        return 2.0 * resized - 1.0


class FIDFeatures:
    """Arrays in, features out, on the GPU where there is one, in float32."""

    def __init__(self, path: Path) -> None:
        """Load the weights file. Raises MissingAsset."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.allow_tf32 = False  # its default rounds convolutions to 10 bits
        self.network = InceptionV3.from_file(path).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3), uint8 or float in [0, 1] -> (n, 2048) float32."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float()
        features: Array = self.network(batch / 255.0 if images.dtype == np.uint8 else batch).cpu().numpy()
        return features


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- the blocks ------------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel: Size, *, stride: int = 1, padding: Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def average_pool(x: Tensor) -> Tensor:
    """3 x 3, same size; positions outside the map are not counted (torchvision's Inception counts them)."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1x1; 5x5; two 3x3; pooled 1x1."""

    def __init__(self, channels: int, *, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 64, 1)
        self.branch5x5_1 = Conv(channels, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(average_pool(x))
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, pooled], dim=1)


class ReductionA(nn.Module):
    """35 x 35 -> 17 x 17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, kernel_size=3, stride=2)], dim=1)


class BlockB(nn.Module):
    """17 x 17, factorised: 1x1; 1x7, 7x1; twice 7x1, 1x7; pooled 1x1."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 192, 1)
        self.branch7x7_1 = Conv(channels, width, 1)
        self.branch7x7_2 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(width, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(channels, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average_pool(x))], dim=1)


class ReductionB(nn.Module):
    """17 x 17 -> 8 x 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(channels, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(channels, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([single, seven, F.max_pool2d(x, kernel_size=3, stride=2)], dim=1)


class BlockC(nn.Module):
    """8 x 8, with 1x3 and 3x1 side by side. The last one pools by maximum, an oddity of the original graph."""

    def __init__(self, channels: int, *, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.branch1x1 = Conv(channels, 320, 1)
        self.branch3x3_1 = Conv(channels, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(channels, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.max_pool else average_pool(x)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, dim=1)
