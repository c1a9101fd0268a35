"""What the commands share: errors as sentences with an exit status, paths, the device."""

from __future__ import annotations

import re
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.contract.errors import EnvironmentFailure, UserError

if TYPE_CHECKING:
    import torch

EXISTING = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


class Command(click.Command):
    """A command whose user errors are one sentence and a documented exit status, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "torchvision", "safetensors"):
                raise
            problem = f"gear needs {error.name}; install it: pip install 'gear-harness[gear]'"
        except BrokenExecutor:
            problem = "a helper process was killed, usually since memory ran out; allow more, or use fewer (--workers)."
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # of torch
                raise
            problem = f"out of memory ({str(error).partition('.')[0]}); make batches or tiles smaller"
        except OSError as error:
            if error.filename is None:
                raise
            problem = f"{error.filename}: {error.strerror}; check the path, its permissions and the disk."
        click.secho(f"error: {problem}", fg="red", err=True)
        ctx.exit(EnvironmentFailure.exit_code)


class Group(click.Group):
    command_class = Command
    group_class = type


def torch_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; on a GPU float32 products may use TF32, as the published runs did."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"no device named {name!r}; choose --device auto, cpu, cuda or cuda:N.")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is available here; use --device cpu.")
        torch.set_float32_matmul_precision("high")
    return device
