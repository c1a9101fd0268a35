"""The external files that a configuration needs, so that the user can fetch them all before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gear.assets import digest_of, files_of, find_asset, state_of
from gear.config import RunConfig
from gear.losses.lpips import packaged_heads
from gear.teachers import weights_of
from gear.text import weights_digest, weights_source


@dataclass(frozen=True, kw_only=True)
class RequiredFile:
    """One file and what needs it."""

    purpose: str
    source: str
    setting: str = ""
    """The field that can name a copy."""

    @property
    def state(self) -> str:
        """One line for the user: found, or the command that fetches it."""
        return f"{self.purpose}: {state_of(self.source)}"


def required_files(config: RunConfig) -> list[RequiredFile]:
    """The files that losses, teachers and stages need, without those given on the command line."""
    needs = [*_perceptual(config), *(_teachers(config) if any(map(config.aligns, config.phases)) else ())]
    if config.text is not None and (source := weights_source(config.text)) is not None:
        needs.append(RequiredFile(purpose="text encoder", source=source, setting="text.source"))
    watch = config.watch
    if watch.features_weights is not None and (
        watch.generation_every or watch.reconstruction_every or watch.coco_every
    ):
        needs.append(RequiredFile(purpose="Frechet distances while training", source=watch.features_weights))
    if watch.coco_every:
        from harness.scoring.networks.clip import FILES as CLIP_FILES

        needs += [
            RequiredFile(purpose="CLIPScores while training", source=file)
            for file in files_of(watch.coco_clip, CLIP_FILES)
        ]
    starts = ((phase, stage.init) for phase, stage in config.stages.items())
    needs += [
        RequiredFile(purpose=f"start of stage {phase} without --init", source=init) for phase, init in starts if init
    ]
    return needs


def frozen_digests(phase: str, config: RunConfig) -> dict[str, str]:
    """SHA-256 of the frozen weights that a stage's losses use, by purpose; independent of where the files are.

    Raises MissingAsset when one is not on this machine; EnvironmentFailure when its package is not installed.
    """
    needs = [*_perceptual(config)] if phase in ("tokenizer", "e2e") else []
    if config.aligns(phase):
        needs += _teachers(config)
    digests = {
        need.purpose: digest_of(find_asset(need.source, purpose=need.purpose, setting=need.setting)) for need in needs
    }
    if phase in ("tokenizer", "e2e") and config.perceptual.name == "lpips" and config.perceptual.lpips_weights is None:
        digests[_purpose("lpips_weights")] = digest_of(packaged_heads())
    if phase == "t2i" and config.text is not None:
        digests["text encoder"] = weights_digest(config.text)
    return digests


def _perceptual(config: RunConfig) -> Iterator[RequiredFile]:
    if config.perceptual.name == "none":
        return
    for setting in ("vgg_weights", "lpips_weights"):
        source = getattr(config.perceptual, setting)
        if source is not None:
            yield RequiredFile(purpose=_purpose(setting), source=source, setting=f"perceptual.{setting}")


def _purpose(setting: str) -> str:
    """What a weight file of the perceptual loss is for, as run folders record it."""
    return f"LPIPS loss ({setting})"


def _teachers(config: RunConfig) -> Iterator[RequiredFile]:
    for name in config.teacher.names:
        source = weights_of(config.teacher, name, config.data.image_size)
        if source is not None:
            yield RequiredFile(purpose=f"teacher {name}", source=source, setting="teacher.weights")
