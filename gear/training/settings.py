"""How a run is computed and watched: the two sections of a configuration that do not affect what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gear.ranges import Count, Guidance, Natural, Seed, Several, Weight

TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a step is computed. Only rounding depends on it, so a run may continue with other values."""

    sharding: Literal["none", "fsdp"] = "none"
    """`none`: every process holds the whole model. `fsdp`: FSDP2 shards the AR model, its projectors, their average and
    their optimizer over the processes, for models that do not fit otherwise."""
    compile: bool = False
    """Compile each module separately with torch.compile (encoder, decoder, critic, every AR block); on a GPU only."""
    activation_checkpointing: bool = False
    """Recompute every AR block in the backward pass instead of keeping its activations."""
    bucket_mb: Count = 25
    """Gradients are averaged over the processes in pieces of this many MiB, while the backward pass still runs."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is shown while a run trains. An interval of 0 turns its picture or monitor off."""

    track: str = ""
    """Trackers besides log.jsonl: `tensorboard`, `wandb`, or both (`tensorboard,wandb`)."""
    project: str = "gear"
    """Project of Weights & Biases."""
    peak_tflops: Weight = 0.0
    """Peak of one device in TFLOP/s, for the MFU; 0 looks it up by the GPU's name."""
    grids_every: Natural = 20_000
    """Updates between grids of samples and of reconstructions (images/ in the run folder, and the trackers)."""
    grid_images: Several = 16
    """Pictures in a grid."""
    grid_cfg_scale: Guidance = 4.0
    """Guidance scale of the sample grid."""
    generation_every: Natural = 0
    """Updates between Frechet distances of samples (no guidance, no filter), live and averaged weights."""
    generation_images: Several = 5_000
    """Samples for one such distance, over all processes."""
    reconstruction_every: Natural = 0
    """Updates between reconstruction metrics on validation images, live and averaged weights."""
    reconstruction_images: Several = 5_000
    """At most this many validation images."""
    validation_dir: str | None = None
    """Validation images as DIR/<class>/<image>; None takes the held-out split where the data has one."""
    features: Literal["lite0", "inception"] = "lite0"
    """Network whose features the Frechet distances compare. Only `inception` with its official weights gives FIDs."""
    features_weights: str | None = None
    """Weights of that network: a path, or an address that `gear.assets` finds; lite0's come with its package."""
    reference: str | None = None
    """Statistics (.npz with mu and sigma) to compare samples with; None computes them from the training images."""
    at_step_1: bool = True
    """Also make the grids and reconstruction metrics that are on after the first update, to show the starting point."""
    coco_every: Natural = 0
    """Stage t2i: updates between FIDs and CLIPScores of drawn COCO captions, averaged weights, without and with
    guidance."""
    coco_dir: str | None = None
    """Folder of parquet files with the columns image and caption."""
    coco_images: Several = 1_000
    """At most this many captions, over all processes."""
    coco_seed: Seed = 42
    """Seed of the permutation of all rows; the captions are its first ones."""
    coco_image_size: Count = 256
    """Side to which real and drawn images are resized."""
    coco_cfg_scale: Guidance = 1.5
    """Guidance scale of the second measurement; 1 leaves it out."""
    coco_top_k: Natural = 2_000
    """Sample from the k likeliest tokens; 0 = all."""
    coco_clip: str = "hf://openai/clip-vit-base-patch32"
    """CLIP of the CLIPScore: hf://owner/name, or a folder with config.json, model.safetensors, vocab.json and
    merges.txt."""
    batch_size: Several = 32
    """Images of one process at a time in grids and monitors."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            raise ValueError(f"no tracker named {unknown[0]!r} (track); choose from {' and '.join(TRACKERS)}")
        if self.features == "inception" and self.features_weights is None:
            raise ValueError("features = inception needs features_weights, the file pt_inception-2015-12-05-*.pth")
        if self.coco_every and self.coco_dir is None:
            raise ValueError("coco_every needs coco_dir, the folder of COCO's parquet files")
        if self.coco_every and self.features != "inception":
            raise ValueError("coco_every computes FIDs; it needs features = inception and features_weights")

    @property
    def trackers(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.track.split(",") if name.strip())
