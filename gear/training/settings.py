"""How a run is computed and watched: the two sections of a configuration that do not change what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a step is computed. Beyond rounding nothing here changes the result, so a run may go on with other values."""

    sharding: Literal["none", "fsdp"] = "none"
    """`none`: every process holds the whole model. `fsdp`: FSDP2 cuts the AR model, its projectors, their average and
    their optimizer over the processes, for models that do not fit otherwise."""
    compile: bool = False
    """torch.compile of each module by itself: encoder, decoder, critic, every AR block."""
    activation_checkpointing: bool = False
    """Recompute every AR block in the backward pass instead of keeping its activations."""
    bucket_mb: int = 25
    """Gradients are averaged over the processes in pieces of this many MiB, while the backward pass still runs."""

    def __post_init__(self) -> None:
        if self.bucket_mb < 1:
            raise ValueError(f"bucket_mb must be at least 1, got {self.bucket_mb}")


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is shown while a run trains. An interval of 0 turns its picture or monitor off."""

    track: str = ""
    """Trackers beside log.jsonl: `tensorboard`, `wandb`, or both with a comma between."""
    project: str = "gear"
    """Project of Weights & Biases."""
    peak_tflops: float = 0.0
    """Peak of one device in TFLOP/s, for the MFU; 0 looks the GPU's name up."""
    grids_every: int = 20_000
    """Updates between grids of samples and of reconstructions (images/ in the run folder, and the trackers)."""
    grid_images: int = 16
    """Pictures in a grid."""
    grid_cfg_scale: float = 4.0
    """Guidance scale of the sample grid."""
    generation_every: int = 0
    """Updates between Frechet distances of drawn images (1 = no guidance, no filter), live and averaged weights."""
    generation_images: int = 5_000
    """Images drawn for one such distance, over all processes."""
    reconstruction_every: int = 0
    """Updates between reconstruction metrics on validation images, live and averaged weights."""
    reconstruction_images: int = 5_000
    """Validation images at most."""
    validation_dir: str | None = None
    """Validation images as DIR/<class>/<image>; None takes the held-out split where the data has one."""
    features: Literal["lite0", "inception"] = "lite0"
    """Network whose features the Frechet distances compare. Only `inception` with its official weights gives FIDs."""
    features_weights: str | None = None
    """Weights of that network: a path, or an address that `gear.assets` finds; lite0 has them in its package."""
    reference: str | None = None
    """Statistics (.npz with mu and sigma) to compare drawn images with; None computes them from the training images."""
    batch_size: int = 32
    """Images of one process at a time in grids and monitors."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            raise ValueError(f"track names {unknown[0]!r}; there are {' and '.join(TRACKERS)}")
        for name in ("grids_every", "generation_every", "reconstruction_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("grid_images", "generation_images", "reconstruction_images", "batch_size"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        if self.features == "inception" and self.features_weights is None:
            raise ValueError("features = inception needs features_weights, the file pt_inception-2015-12-05-*.pth")

    @property
    def trackers(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.track.split(",") if name.strip())
