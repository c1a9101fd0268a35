"""Foreign weights enter by this door: files are read without running code from them, and loaded key for key."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from harness.contract.errors import UserError

StateDict = dict[str, Tensor]


def read_weights(path: Path) -> Any:
    """The content of a `.safetensors`, `.pt`, `.pth` or `.ckpt` file, on the CPU: nested dictionaries of tensors.

    Only tensors and plain Python values are unpickled. Objects of other classes, as Lightning and older training
    scripts store beside the weights, are replaced by empty placeholders, so no code of theirs runs or is needed.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        zipped = zipfile.is_zipfile(path)  # the format since PyTorch 1.6; LPIPS's heads are older
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        with torch.serialization.safe_globals([(_Placeholder, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # PyTorch's own advice in this error is to read the file unsafely.
        raise UserError(
            f"{path} cannot be read as weights: it is damaged, or asks for code to be run; "
            "download it again from its authors, or have its state dict saved as .safetensors"
        ) from error
    except (safetensors.SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as weights ({reason}); copy or download it again") from error


class _Placeholder(dict):
    """Stands for an object of a class this project does not know; takes any arguments and state, keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def read_state_dict(path: Path) -> StateDict:
    """`read_weights` for a file that must be a flat state dict, whose keys become ours by renaming alone."""
    content = read_weights(path)
    if not is_state_dict(content):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"{path} is no plain state dict (found: {found}); check that it is the file you meant")
    return content


def is_state_dict(value: Any) -> bool:
    """Whether `value` is a non-empty dictionary of tensors by name."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def load_exactly(module: nn.Module, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """Load every key or nothing: missing keys, left-over keys and other shapes are refused, and named.

    `source` says in the message where the weights came from.
    """
    own = module.state_dict()
    problems = []
    if missing := [key for key in own if key not in state_dict]:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if extra := [key for key in state_dict if key not in own]:
        problems.append(f"{len(extra)} left over ({_some(extra)})")
    shapes = [
        f"{key} is {tuple(state_dict[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state_dict and state_dict[key].shape != own[key].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if problems:
        raise UserError(
            f"{source} does not fit the {type(module).__name__} it should fill: {'; '.join(problems)}; "
            "check that the configuration names the architecture these weights were trained with"
        )
    module.load_state_dict(dict(state_dict), strict=True)


def _some(items: list[str], limit: int = 3) -> str:
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
