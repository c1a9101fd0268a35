"""Optional trackers of figures and pictures, besides log.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gear.config import RunConfig
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import write_atomically

Image = npt.NDArray[np.uint8]
"""(H, W, 3)."""


class Tracker(Protocol):
    """A service that shows the figures and pictures of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, step: int, name: str, image: Image) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<run>/tensorboard`. What a killed run wrote after `after_step` is hidden, not repeated."""

    def __init__(self, out_dir: Path, after_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing("tensorboard") from error
        writer: Any = SummaryWriter
        self._writer = writer(str(out_dir / "tensorboard"), purge_step=after_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: Image) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, one per run folder. WANDB_MODE=offline keeps it on the disk."""

    def __init__(self, out_dir: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("wandb") from error
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=project,
                name=out_dir.resolve().name,
                id=_run_id(out_dir),
                resume="allow",
                dir=str(out_dir),
                config=dict(config),
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"Weights & Biases did not start ({error}); run `wandb login`, or keep its data on this disk with "
                "WANDB_MODE=offline, or leave --track wandb out."
            ) from None
        # A step metric of our own, so that a run that went back to a checkpoint may log a step again.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, image: Image) -> None:
        self._run.log({"step": step, name: self._image(image)})

    def close(self) -> None:
        self._run.finish()


def _run_id(out_dir: Path) -> str:
    path = out_dir / "wandb-id.txt"
    if not path.exists():
        with write_atomically(path, "w") as stream:
            stream.write(secrets.token_hex(8))
    return path.read_text(encoding="utf-8").strip()


def _missing(package: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"--track {package} needs the package {package}; install it: pip install 'gear-harness[track]'."
    )


def open_trackers(config: RunConfig, out_dir: Path, after_step: int) -> list[Tracker]:
    """The trackers that the configuration names."""
    trackers: list[Tracker] = []
    for name in config.watch.trackers:
        if name == "tensorboard":
            trackers.append(TensorBoard(out_dir, after_step))
        else:
            trackers.append(WandB(out_dir, config.watch.project, config.to_dict()))
    return trackers
