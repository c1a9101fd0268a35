"""The files from outside that a configuration asks for, so that a person can fetch them all before the first step."""

from __future__ import annotations

from dataclasses import dataclass

from gear.assets import state_of
from gear.config import RunConfig
from gear.features.clip import clip_files
from gear.teachers import weights_of


@dataclass(frozen=True, kw_only=True)
class Need:
    """One file and who asks for it."""

    purpose: str
    source: str

    @property
    def state(self) -> str:
        """One line for people: found, or what to type."""
        return f"{self.purpose}: {state_of(self.source)}"


def needed_files(config: RunConfig) -> list[Need]:
    """What losses, teachers and stages ask for; files given on the command line are not in it."""
    perceptual = (config.perceptual.vgg_weights, config.perceptual.lpips_weights)
    needs = [Need(purpose="LPIPS loss", source=source) for source in perceptual if source is not None]
    for name in config.teacher.names:
        source = weights_of(config.teacher, name, config.data.image_size)
        if source is not None:
            needs.append(Need(purpose=f"teacher {name}", source=source))
    watch = config.watch
    if watch.features_weights is not None and (
        watch.generation_every or watch.reconstruction_every or watch.coco_every
    ):
        needs.append(Need(purpose="Frechet distances while training", source=watch.features_weights))
    if watch.coco_every:
        needs += [Need(purpose="CLIPScores while training", source=file) for file in clip_files(watch.coco_clip)]
    starts = ((phase, stage.init) for phase, stage in config.stages.items())
    needs += [Need(purpose=f"start of stage {phase} without --init", source=init) for phase, init in starts if init]
    return needs
