"""What all image tokenizers share: their configuration, the code they return, and the module that joins the parts.

Shapes: B images, (H, W) pixels, f downsample factor, (h, w) = (H/f, W/f), N = B*h*w tokens in raster order
(row n = (b*h + y)*w + x), C code dimension, K entries a code id can name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gear.numerics import at_least_float32, in_layout
from gear.tokenizers.distances import Distances
from harness.contract.errors import UserError
from harness.contract.fields import build


@dataclass(frozen=True, kw_only=True)
class EntropyTerms:
    """The entropy regulariser of one forward pass; three 0-d tensors with their graphs."""

    total: Tensor
    """The loss: entropy_loss_ratio * (sample - average), with the family's weights."""
    sample: Tensor
    """Mean entropy of a token's assignment, in nats."""
    average: Tensor
    """Entropy of the mean assignment over all tokens of all processes, in nats."""


@dataclass(frozen=True, kw_only=True)
class QuantizerLosses:
    """The quantiser's own losses; a term is None in evaluation mode and where the family has no such term."""

    vq: Tensor | None = None
    """Pulls the codebook towards the encoder (for IBQ: the whole quantiser loss)."""
    commit: Tensor | None = None
    """Pulls the encoder towards its code; commit_loss_beta is already inside."""
    entropy: EntropyTerms | None = None

    def total(self, entropy_weight: float = 1.0) -> Tensor | float:
        """The sum of the present terms; 0.0 when there is none."""
        total: Tensor | float = 0.0
        for term in (self.vq, self.commit):
            if term is not None:
                total = total + term
        if self.entropy is not None:
            total = total + entropy_weight * self.entropy.total
        return total


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a tokenizer makes of a batch of images."""

    quant: Tensor
    """(B, C, h, w): the code vectors; their gradient reaches the encoder in the family's own way."""
    code_ids: Tensor
    """(N,) int64, raster order; (N * codes_per_token,), token-major, where a token has several ids."""
    distances: Distances
    """From every row of code_ids to all codes, at least float32, never detached; held as factors, not as a matrix."""
    losses: QuantizerLosses
    recon: Tensor | None = None
    """(B, 3, H, W), unclamped; None when the image was only encoded."""

    @property
    def code_distances(self) -> Tensor:
        """d as a matrix (rows of code_ids, K), computed on every access; softmax(-d / tau) is the soft posterior.

        For small sizes and checks only: training uses `distances`, which never builds the matrix.
        """
        return self.distances.matrix()


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ABC):
    """The fields every family has; `family` names the subclass in checkpoints and YAML."""

    family: ClassVar[str]
    loss_fields: ClassVar[frozenset[str]] = frozenset({"commit_loss_beta", "entropy_loss_ratio"})
    """Fields that only weight losses: they show in no tensor, and may change from stage to stage."""

    ch: int = 128
    """Base width of the convolutional backbone; multiplied per level."""
    num_res_blocks: int = 2
    """Residual blocks per encoder level."""
    commit_loss_beta: float = 0.25
    """Weight of the term that pulls the encoder towards its code."""
    entropy_loss_ratio: float = 0.0
    """Weight of the entropy regulariser; its value is computed and logged even at 0."""

    def __post_init__(self) -> None:
        require(self.ch > 0 and self.num_res_blocks > 0, "ch and num_res_blocks must be positive")
        require(self.commit_loss_beta >= 0, f"commit_loss_beta must not be negative, got {self.commit_loss_beta}")
        require(self.entropy_loss_ratio >= 0, f"entropy_loss_ratio must not be negative, got {self.entropy_loss_ratio}")

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """K: the entries one code id can name."""

    @property
    @abstractmethod
    def code_dim(self) -> int:
        """C: channels of the quantised map."""

    @property
    def codes_per_token(self) -> int:
        """Code ids per grid position; more than one only for grouped tokenizers, which no AR model here supports."""
        return 1

    @property
    @abstractmethod
    def downsample(self) -> int:
        """f: side of the square of pixels that one token represents."""

    def grid_side(self, image_size: int) -> int:
        """Tokens along one side of a square image."""
        factor = self.downsample
        require(
            image_size > 0 and image_size % factor == 0,
            f"{image_size} pixels do not divide into tokens of {factor} pixels; use a multiple of {factor}",
        )
        return image_size // factor

    def tokens(self, image_size: int) -> int:
        """Tokens of a square image."""
        return self.grid_side(image_size) ** 2

    def architecture(self) -> dict[str, Any]:
        """`to_dict` without `loss_fields`: the fields that must match for weights to fit."""
        return {name: value for name, value in self.to_dict().items() if name not in self.loss_fields}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, `family` included; `from_dict` reads it back."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"family": self.family, **plain}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TokenizerConfig:
        """The configuration of the family that `values` names.

        Raises ValueError for an unknown family, and for a field that is unknown or has a wrong value.
        """
        from gear.tokenizers import FAMILIES  # here, since the registry imports the families, and they this module

        require(isinstance(values, Mapping), f"it must be a section with fields, not {values!r:.80}")
        given = dict(values)
        family = str(given.pop("family", None))
        require(family in FAMILIES, f"unknown tokenizer family {family!r}; known: {', '.join(sorted(FAMILIES))}")
        try:
            return build(FAMILIES[family].config, given, f"the {family} tokenizer")
        except UserError as problem:
            raise ValueError(str(problem).rstrip(".")) from None


class Tokenizer(nn.Module):
    """Encoder, quantiser, decoder. A family supplies the three parts; this class uses them.

    Every call takes and returns `pixels`: float (B, 3, H, W) in [-1, 1]; reconstructions are not clamped.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        quantize: Quantizer,
        quant_conv: nn.Module | None = None,
        post_quant_conv: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        # The names and their order are those of the public checkpoints and of their optimiser states.
        self.encoder = encoder
        self.decoder = decoder
        self.quantize = quantize
        self.quant_conv = quant_conv or nn.Identity()
        self.post_quant_conv = post_quant_conv or nn.Identity()
        self.layout: torch.memory_format | None = None
        """Memory layout of all maps; None = channels last on a GPU, rows on a CPU."""

    def pre_quant(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w): the input of the quantiser."""
        factor = self.config.downsample
        if pixels.ndim != 4 or pixels.shape[2] % factor or pixels.shape[3] % factor:
            shape = tuple(pixels.shape)
            raise ValueError(f"pixels must be (B, 3, H, W) with H and W multiples of {factor}, got {shape}")
        return self.quant_conv(self.encoder(in_layout(pixels, self.layout)))

    def encode(self, pixels: Tensor) -> Code:
        """The code of a batch of images, without a reconstruction."""
        return self.quantise(self.pre_quant(pixels))

    def quantise(self, pre_quant: Tensor) -> Code:
        """Choose codes for what `pre_quant` returned.

        In float32 at least: in bfloat16 several per cent of the tokens have two codes at exactly the same distance.
        """
        with torch.autocast(device_type=pre_quant.device.type, enabled=False):
            return self.quantize(at_least_float32(pre_quant))

    def decode(self, quant: Tensor) -> Tensor:
        """(B, C, h, w) -> pixels (B, 3, H, W)."""
        return self.decoder(self.post_quant_conv(in_layout(quant, self.layout)))

    def lookup(self, code_ids: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Code vectors (B, C, h, w) of ids in raster order; `grid` is (B, h, w), the ids may have any shape."""
        batch, height, width = grid
        vectors = self.quantize.lookup(code_ids.reshape(-1))  # (N, C)
        return vectors.reshape(batch, height, width, self.config.code_dim).permute(0, 3, 1, 2).contiguous()

    def decode_ids(self, code_ids: Tensor) -> Tensor:
        """Pixels of square images from their ids (B, L) in raster order."""
        batch, length = code_ids.shape
        side = math.isqrt(length // self.config.codes_per_token)
        if side * side * self.config.codes_per_token != length:
            raise ValueError(f"{length} code ids per image do not form a square grid; use lookup() with its shape")
        return self.decode(self.lookup(code_ids, (batch, side, side)))

    def forward(self, pixels: Tensor) -> Code:
        """Encode and reconstruct."""
        code = self.encode(pixels)
        return replace(code, recon=self.decode(code.quant))


class Quantizer(nn.Module, ABC):
    """Chooses codes: `forward` maps float32 (B, C, h, w) to a Code without reconstruction."""

    @abstractmethod
    def forward(self, pre_quant: Tensor) -> Code:
        """(B, C, h, w) -> the code of every position."""

    @abstractmethod
    def lookup(self, code_ids: Tensor) -> Tensor:
        """(N * codes_per_token,) int64 -> (N, C) code vectors."""

    def reset_constants(self) -> None:
        """Compute the buffers that are in no file; called again after a module on the meta device got its weights."""


def to_rows(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (N, C) in raster order."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def to_map(rows: Tensor, like: Tensor) -> Tensor:
    """(N, C) in raster order -> (B, C, h, w) of `like`'s batch and grid."""
    batch, _, height, width = like.shape
    return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def straight_through(source: Tensor, value: Tensor) -> Tensor:
    """`value` in the forward pass, the identity to `source` in the backward pass."""
    return source + (value - source).detach()


def require(condition: bool, message: str) -> None:
    """Refuse a configuration with a sentence in the user's words."""
    if not condition:
        raise ValueError(message)


def require_widths(ch: int, ch_mult: tuple[int, ...]) -> None:
    """Group normalisation divides every width into 32 groups."""
    for width in (ch, *(ch * m for m in ch_mult)):
        require(width > 0 and width % 32 == 0, f"every width ch * ch_mult must be a multiple of 32, got {width}")
