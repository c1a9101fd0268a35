"""The published architectures as names and shapes, and files of full-size tensors that take no space."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gear.align import Projectors
from gear.ar import AR_SIZES, TEXT_AR_SIZES, ar_config, text_ar_config
from gear.ar.checkpoints import build_ar
from gear.losses import LPIPS, PatchDiscriminator
from gear.tokenizers import TOKENIZERS, build_tokenizer

SPEC = Path(__file__).parents[3] / "shared" / "spec" / "state-dicts"
"""The full maps, if they are beside the checkout."""

CAPTION_DIM = 2048
"""Width of the published text encoder, Qwen3-1.7B."""

Shapes = dict[str, list[int]]

DIGESTS = {
    "vq-16": "fbde8dc339247c543903fd62208fa5e54000621c3f513438349c47f21b6a669d",
    "vq-8": "8c8a6e544b068b2a84428e261d1dc5b2a69e42ae320636a2ad77e00e099a6ec9",
    "lfq-16": "cdccfc03006eb954d77fece30358abb976eb1df0786f0ffc9542d678363d5969",
    "lfq-8": "1630d27054935bfc86c1111e396ed3fe8c9f2e07606ce171094eadfce6b7faa8",
    "glfq-16": "b906834ce0d48785a3e675e281e7b5634c237e70f5865dddfc72047fc464fea2",
    "ibq-16": "157cc853a52c24d80e7614479af28f19058de698e172355f9a621eb0a7bc45ab",
    "discriminator": "6ffa580a14f9aabcf12427e2617283e43d0234667e5a48f618fe67d3ae300537",
    "lpips": "2af6e65c784232e568e3fffd39d0f6ddd2c64fbceb7ed273dd5cce5787ed799b",
    "c2i-LlamaGen-S": "0d77be11ca8ac78430d5bb4eec55d6f5e33f61726bbeee780d2a3df881b0f809",
    "c2i-LlamaGen-B": "28cc50a11c953d074a28bcc9d032c7ca1e39483b29ff3662ee9f78d49b13a97b",
    "c2i-LlamaGen-L": "9eb784ab8b0b7f422cbb8b56e89b18930dd777de079298ac588b2144f910a121",
    "c2i-LlamaGen-XL": "0f11391e736dc434a84e8638670db564266942c1bd0cffc0d26fabe8bdb71335",
    "c2i-LlamaGen-XXL": "6bd43a9e9d2f7fc20bdc40c6ce6aae24ebf79b716b543d5c85a6f044d858c760",
    "c2i-LlamaGen-XXXL": "dd3a0e23023e8b4c7a3b1414b0ac00ac688843b2fcde9b499e7ef253a669b42d",
    "c2i-LlamaGen-3B": "80b226e0579ab09a68280d8feb2c897e178700d9e920f5175a04c2e7b0180171",
    "t2i-LlamaGen-S": "22d0eba37f2f2836ad766a73d420dc3d6a89abfacb5d7314d4b3342794815f32",
    "t2i-LlamaGen-B": "a281f59268a6fc7d9d09d80e2dad0f6b4aa41d7c74388d570c7bac87bd6503d3",
    "t2i-LlamaGen-L": "0d1ea09d5d7b4e8274c2197b182cd3cff4108e184f664df0ee92eaddbf60a0a6",
    "t2i-LlamaGen-XL": "66b5bc8e5e3b007bdb0ff8d431812931afaa3970ee29a537d9c53fb2ec16e5d0",
    "t2i-LlamaGen-XXL": "15decbdb4270867f592465d1e79fe072b4dc9c2628a6b3b0c4a76f16e3846c7c",
    "t2i-LlamaGen-XXXL": "f1c375c330d9aae9b7d87d0764adcebfacddaad7f97ebbc32a2be3987c700ad9",
    "t2i-LlamaGen-1B": "2b570ee96f9811ca553056e4a9676254efa15bfc551fa223c8e7a2bdbdded26f",
}
"""Name -> `digest` of the published weights' names and shapes."""

TOKENIZER_NAMES = [name.lower() for name in TOKENIZERS]
AR_NAMES = [f"c2i-{name}" for name in AR_SIZES] + [f"t2i-{name}" for name in TEXT_AR_SIZES]


def build(name: str) -> nn.Module:
    """The architecture of a name in DIGESTS, on the meta device."""
    kind, _, size = name.partition("-")
    with torch.device("meta"):
        match kind:
            case "discriminator":
                return PatchDiscriminator()
            case "lpips":
                return LPIPS()
            case "c2i":
                return build_ar(ar_config(size))
            case "t2i":
                return build_ar(text_ar_config(size, caption_dim=CAPTION_DIM))
        return build_tokenizer(TOKENIZERS[name.upper()])


def shapes_of(module: nn.Module) -> Shapes:
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def projector_shapes(dim: int) -> Shapes:
    with torch.device("meta"):
        return shapes_of(Projectors(dim, 2048, [768]))


def digest(shapes: Shapes) -> str:
    """Digest of the lines "key: shape" in module order, which is the order of a saved optimiser state's entries."""
    return hashlib.sha256("\n".join(f"{key}: {shape}" for key, shape in shapes.items()).encode()).hexdigest()


def spec(name: str) -> dict[str, Any] | None:
    """The full published map, or None if it is not beside the checkout."""
    path = SPEC / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def weightless(shapes: Shapes, value: float = 0.0) -> dict[str, Tensor]:
    """Full-size tensors, each a single number repeated by a stride of zero, in memory and in files."""
    return {key: torch.tensor([value]).expand(shape) if shape else torch.tensor(value) for key, shape in shapes.items()}
