"""The keys and shapes of the published architectures, so that public weights load into ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from gear.losses import LPIPS, PatchDiscriminator
from gear.tokenizers import TOKENIZERS, build_tokenizer

SPEC = Path(__file__).parents[4] / "shared" / "spec" / "state-dicts"
"""The maps in full, where they lie beside the checkout."""

PUBLISHED = {
    "vq-16": "fbde8dc339247c543903fd62208fa5e54000621c3f513438349c47f21b6a669d",
    "vq-8": "8c8a6e544b068b2a84428e261d1dc5b2a69e42ae320636a2ad77e00e099a6ec9",
    "lfq-16": "cdccfc03006eb954d77fece30358abb976eb1df0786f0ffc9542d678363d5969",
    "lfq-8": "1630d27054935bfc86c1111e396ed3fe8c9f2e07606ce171094eadfce6b7faa8",
    "glfq-16": "b906834ce0d48785a3e675e281e7b5634c237e70f5865dddfc72047fc464fea2",
    "ibq-16": "157cc853a52c24d80e7614479af28f19058de698e172355f9a621eb0a7bc45ab",
    "discriminator": "6ffa580a14f9aabcf12427e2617283e43d0234667e5a48f618fe67d3ae300537",
    "lpips": "2af6e65c784232e568e3fffd39d0f6ddd2c64fbceb7ed273dd5cce5787ed799b",
}
"""Name to the digest of its state dict."""


def state_dict_shapes(name: str) -> dict[str, list[int]]:
    with torch.device("meta"):
        if name == "discriminator":
            module = PatchDiscriminator()
        elif name == "lpips":
            module = LPIPS()
        else:
            module = build_tokenizer(TOKENIZERS[name.upper()])
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def digest(shapes: dict[str, list[int]]) -> str:
    """Of the lines "key: shape" in module order, which is the order of a saved optimiser state's entries."""
    return hashlib.sha256("\n".join(f"{key}: {shape}" for key, shape in shapes.items()).encode()).hexdigest()


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_shapes_and_their_order_are_those_of_the_published_weights(name):
    shapes = state_dict_shapes(name)
    if (SPEC / f"{name}.json").exists():  # says which key differs; the digest only that one does
        assert list(shapes.items()) == list(json.loads((SPEC / f"{name}.json").read_text())["shapes"].items())
    assert digest(shapes) == PUBLISHED[name]
