"""Weights of the two networks, read without running code from them, and loaded key for key.

A weights file may be replaced by a recipe, a JSON file `{"random_weights": SEED}`: the network is then filled with
noise that is the same on every machine. That is for the gold check and for tests: it shows that the environment
computes correctly, on the true architecture, without the real weights.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.contract.errors import MissingAsset

StateDict = dict[str, Tensor]

# MMDetection 2 kept a layer's attentions and feed-forward networks in lists; 3 gives them names. The decoder attends to
# the image first (cross), then to itself; the pixel decoder's encoder has one attention.
_V2_TO_V3 = (
    (r"(\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
    (r"((?:encoder|transformer_decoder)\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
)
_CLIP_CONSTANTS = ("input_resolution", "context_length", "vocab_size")
_BIAS_STD = 0.02


def fill(network: nn.Module, path: Path, asset: str) -> str:
    """Load the weights at `path`, or follow the recipe there; returns a note, "" for real weights.

    Raises:
        MissingAsset: the file does not hold weights of this network; the message names the asset.
    """
    if path.suffix == ".json":
        seed = int(json.loads(path.read_text(encoding="utf-8"))["random_weights"])
        fill_with_noise(network, seed)
        return f"{asset} has random weights (seed {seed}): the numbers mean nothing."
    state_dict = read_state_dict(path, asset)
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
    if missing or extra:
        raise MissingAsset(
            f"{path}: does not fit {asset}: {len(missing)} keys missing {missing[:2]}, {len(extra)} left over "
            f"{extra[:2]}; fetch the listed file: harness assets pull {asset}"
        )
    network.load_state_dict(state_dict, strict=True)
    return ""


def read_state_dict(path: Path, asset: str) -> StateDict:
    """The state dict in a checkpoint of MMDetection 2 or 3, or in CLIP's TorchScript archive, on the CPU."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_script = any(name.endswith("constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        is_script = False  # before PyTorch 1.6
    except OSError as error:
        raise MissingAsset(f"{path}: cannot be read ({error}); fetch it again: harness assets pull {asset}") from error
    if is_script:
        return _clip_keys(dict(torch.jit.load(str(path), map_location="cpu").state_dict()))
    content = _read_tensors(path, asset)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise MissingAsset(f"{path}: has no state dict; fetch it again: harness assets pull {asset}")
    return {_v3_key(key): value for key, value in content.items()}


def fill_with_noise(network: nn.Module, seed: int) -> None:
    """Fill a network from one stream per key, so that the values depend on nothing but seed, key and shape.

    Matrices get the deviation 1 / sqrt(inputs), which keeps the size of activations; norm weights are 1 plus
    noise, other vectors are noise; integers (tables of positions) are not changed.
    """
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            stream = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{key}".encode()))
            std = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else _BIAS_STD
            noise = torch.empty(tensor.shape, dtype=torch.float32).normal_(0.0, std, generator=stream)
            is_scale = tensor.dim() == 1 and key.endswith("weight")
            tensor.copy_(noise + 1.0 if is_scale else noise)


def _read_tensors(path: Path, asset: str) -> Any:
    """The content of a checkpoint: tensors and plain values; objects of other classes become placeholders."""
    try:
        zipped = zipfile.is_zipfile(path)
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        with torch.serialization.safe_globals([(_Placeholder, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise MissingAsset(
            f"{path}: cannot be read as weights ({str(error).splitlines()[0]}); "
            f"fetch it again: harness assets pull {asset}"
        ) from error


class _Placeholder(dict):
    """Stands for an object that a training framework left in a checkpoint; accepts anything, keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def _v3_key(key: str) -> str:
    for pattern, name in _V2_TO_V3:
        key = re.sub(pattern, name, key)
    return key


def _clip_keys(state_dict: StateDict) -> StateDict:
    """CLIP's names are open_clip's; three constants of the archive are not weights. Half precision becomes single."""
    return {key: value.float() for key, value in state_dict.items() if key not in _CLIP_CONSTANTS}
