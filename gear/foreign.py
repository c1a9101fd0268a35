"""Third-party weights files are read without running code from them, and loaded key for key.

The content decides how a file is read, never its name. What unpickling would call (functions, classes outside PyTorch's
own list) is replaced by an empty placeholder or refused; nothing is imported, and nothing is unpacked to the disk.
A file that asks for more than a model needs, or whose content does not match its own checksums, is refused before it is
unpickled (`gear.archive`), and so are weights that are not finite.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gear.archive import MALFORMED, MAX_TENSORS, ZIP_START, TooLarge, check_archive, check_legacy
from harness.contract.errors import UserError
from harness.contract.shown import printable

StateDict = dict[str, Tensor]

_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")
_LFS_POINTER = b"version https://git-lfs"
_MAX_HEADER_BYTES = 16 << 20
"""Of a safetensors file: names, types and shapes of its tensors."""


def read_weights(path: Path, *, plain_only: bool = False, mapped: bool = True) -> Any:
    """The content of a safetensors or PyTorch file, on the CPU: nested dictionaries of tensors and plain values.

    Objects of other classes, as Lightning and older training scripts store beside the weights, become placeholders
    that hold at most their plain fields. plain_only: refuse a file that has any, since our own files never do.
    mapped: tensors stay in the file until they are used; not for tensors that outlive the file, such as an optimizer's
    state.

    Raises UserError: missing, empty, truncated or damaged; a web page or a Git LFS pointer instead of weights; a pickle
    that calls code; more tensors, or a larger pickle, than any model has.
    """
    kind = _kind(path)
    _check(path, kind)
    match kind:
        case "safetensors":
            return _read_safetensors(path)
        case "zip":
            foreign = _foreign_classes(path)
            if foreign and plain_only:
                raise UserError(
                    f"{path} holds more than tensors and plain objects ({_some(foreign)}), so it was not opened; "
                    "save its state dict alone."
                )
            return _read_pickled(path, foreign, mapped=mapped)
        case "pickle":
            return _read_pickled(path, [], mapped=False)


def _kind(path: Path) -> Literal["safetensors", "zip", "pickle"]:
    """The format, from the first bytes; raises UserError when they are not of a weights file."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a weights file")
    try:
        with path.open("rb") as stream:
            head = stream.read(128)
    except OSError as error:
        raise _unreadable(path, error.strerror or "input/output error") from None
    if not head:
        raise _unreadable(path, "it is empty (0 bytes)")
    if head.lstrip().lower().startswith(_WEB_PAGE):
        raise UserError(
            f"{path} cannot be read as weights: it is a web page; download the file itself "
            "(on the hub its address has /resolve/ where the page has /blob/)"
        )
    if head.startswith(_LFS_POINTER):
        raise UserError(
            f"{path} cannot be read as weights: it is a Git LFS pointer; fetch the file with `git lfs pull`"
        )
    if head.startswith(ZIP_START):
        if not zipfile.is_zipfile(path):
            raise _unreadable(path, "it is truncated: the end of the archive is missing")
        return "zip"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):  # older still, such as LPIPS's heads
        return "pickle"
    raise _unreadable(path, "it is neither a PyTorch nor a safetensors file")


def _check(path: Path, kind: Literal["safetensors", "zip", "pickle"]) -> None:
    """Bounds and checksums; raises UserError."""
    checks = {"safetensors": _check_safetensors, "zip": check_archive, "pickle": check_legacy}
    try:
        checks[kind](path)
    except TooLarge as error:
        raise UserError(
            f"{path} cannot be read as weights: {error}; save its state dict alone, with torch.save or as .safetensors"
        ) from None
    except _MALFORMED as error:
        raise _unreadable(path, _first_line(error)) from error


def _check_safetensors(path: Path) -> None:
    with path.open("rb") as stream:
        (header,) = struct.unpack("<Q", stream.read(8))
    if _MAX_HEADER_BYTES < header < path.stat().st_size:
        raise TooLarge(f"its header has {header:,} bytes, and at most {_MAX_HEADER_BYTES:,} are read")
    with safetensors.safe_open(path, "pt") as file:
        if (tensors := len(file.keys())) > MAX_TENSORS:
            raise TooLarge(f"it has {tensors:,} tensors, and at most {MAX_TENSORS:,} are read")


def _read_safetensors(path: Path) -> StateDict:
    try:
        return safetensors.torch.load_file(path)
    except _MALFORMED as error:
        raise _unreadable(path, _first_line(error)) from error


def _foreign_classes(path: Path) -> list[str]:
    """Functions and classes that a zipped file needs and that are not PyTorch's own; nothing is imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _MALFORMED as error:
        raise _unreadable(path, _first_line(error)) from error


def _read_pickled(path: Path, foreign: list[str], *, mapped: bool) -> Any:
    mapped = mapped and path.suffix != ".safetensors"  # given a path, torch.load decides by its name
    try:
        with path.open("rb") as stream, torch.serialization.safe_globals([(_Placeholder, name) for name in foreign]):
            return torch.load(path if mapped else stream, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # PyTorch's own advice in this error is to read the file unsafely.
        raise UserError(
            f"{path} cannot be read as weights: it is damaged, or asks for code to be run; "
            "download it again from its authors, or have its state dict saved as .safetensors"
        ) from error
    except _MALFORMED as error:
        raise _unreadable(path, _first_line(error)) from error


_MALFORMED = (*MALFORMED, safetensors.SafetensorError)


class _Placeholder(dict):
    """Stands for an object of a class this project does not know; takes any arguments, keeps only plain fields."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        # The settings of a training script (argparse.Namespace) are kept: they name the architecture.
        if isinstance(state, dict):
            self.update({key: value for key, value in state.items() if isinstance(value, _PLAIN)})


_PLAIN = (str, int, float, bool, type(None))


def read_state_dict(path: Path) -> StateDict:
    """`read_weights` for a file that must be a flat state dict, whose keys become ours by renaming alone."""
    content = read_weights(path)
    if not is_state_dict(content):
        raise UserError(
            f"{path} is not a plain state dict (found: {outline(content)}); check that it is the file you meant"
        )
    return content


def is_state_dict(value: Any) -> bool:
    """Whether `value` is a non-empty dictionary of tensors by name."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def outline(content: Any) -> str:
    """The first keys of a file's content, or its type, for error messages."""
    return _some(list(map(str, content)), limit=8) if isinstance(content, Mapping) else type(content).__name__


def load_exactly(module: nn.Module, state_dict: Mapping[str, Tensor], *, source: str, assign: bool = False) -> None:
    """Load every key or nothing: missing and left-over keys, wrong shapes and values that are not finite are refused,
    and the message names them.

    source: where the weights came from, for the message. assign: copies of the tensors become the parameters, for a
    module that was built on the meta device and has no memory yet; types are converted to the module's.
    """
    check_shapes(module, state_dict, source=source)
    own = module.state_dict()
    if wrong := unusable(state_dict):
        raise UserError(
            f"{source} holds values that are not finite (NaN or infinity), or none at all, in {len(wrong)} of its "
            f"tensors ({_some(wrong)}): its training diverged or the file is damaged; give another copy, or an earlier "
            "checkpoint"
        )
    if assign:
        state_dict = {key: _in_memory(value).to(own[key].dtype) for key, value in state_dict.items()}
    module.load_state_dict(dict(state_dict), strict=True, assign=assign)


def check_shapes(module: nn.Module, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """Raise UserError unless the names and shapes are the module's, which may be on the meta device.

    source: where the weights came from, for the message.
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
        problems.append(f"{len(shapes)} of the wrong shape ({_some(shapes)})")
    if problems:
        raise UserError(
            f"{source} does not fit the {type(module).__name__}: {'; '.join(problems)}; "
            "check that the configuration names the architecture these weights were trained with"
        )


def unusable(state_dict: Mapping[str, Tensor]) -> list[str]:
    """The tensors that cannot be weights: NaN or infinity in one spoils every output; others hold no values at all."""
    return [key for key, value in state_dict.items() if not (_is_dense(value) and _is_finite(value))]


def _is_dense(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_quantized and not value.is_meta


def _is_finite(value: Tensor) -> bool:
    value = _stored(value.detach())
    if not value.numel() or not value.is_floating_point():
        return True
    # Smallest and largest value in one pass without a mask in memory; both are NaN where one value is.
    ends = torch.aminmax(value.float() if value.element_size() == 1 else value)
    return math.isfinite(ends.min) and math.isfinite(ends.max)


def _stored(value: Tensor) -> Tensor:
    """The values that are in memory, of a tensor that repeats them."""
    storage = value.untyped_storage()
    if value.nbytes <= storage.nbytes():
        return value
    return torch.empty(0, dtype=value.dtype).set_(storage, 0, (storage.nbytes() // value.element_size(),), (1,))


def _in_memory(value: Tensor) -> Tensor:
    """A copy that no longer needs its file, which may be overwritten while the model lives; strides are kept."""
    storage = value.untyped_storage()
    if storage.nbytes() > value.nbytes:  # a part of something larger
        return value.clone()
    return torch.empty(0, dtype=value.dtype).set_(storage.clone(), value.storage_offset(), value.shape, value.stride())


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"{path} cannot be read as weights ({reason}); copy or download it again")


def _first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])


def _some(items: list[str], limit: int = 3) -> str:
    return printable(" ".join(", ".join(items[:limit]).split())) + (", ..." if len(items) > limit else "")
