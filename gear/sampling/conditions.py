"""Requests as conditions of the AR model: a class label, or a prompt encoded by a text encoder."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import torch

from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.text.base import TextEncoder
from gear.text.caption_cache import CachingEncoder
from harness.contract.errors import UserError
from harness.contract.requests import Request, RequestSet

log = logging.getLogger(__name__)

Key = int | str | None
"""A label, a prompt, or None for the null condition: equal keys are equal conditions."""


class Conditions(Protocol):
    """Turns requests into conditions of one kind."""

    def check(self, request_set: RequestSet, *, guides: bool) -> None:
        """Raises UserError when the requests are not for this model."""

    def key(self, request: Request) -> Key:
        """The key of a request's condition."""

    def condition(self, key: Key) -> Any:
        """The condition as a batch of one, on the model's device."""

    def report(self) -> None:
        """Log what happened to the conditions, after all images were drawn."""


def conditions_of(ar: Trunk, encoder: TextEncoder | None) -> Conditions:
    """Labels for a class-conditional model, prompts for a text-to-image one."""
    if isinstance(ar, ClassConditionalAR):
        return LabelConditions(ar)
    if not isinstance(ar, TextToImageAR):
        raise TypeError(f"{type(ar).__name__} takes neither labels nor prompts")
    if encoder is None:
        raise UserError("a text-to-image model needs the text encoder it was trained with; give --text-encoder DIR.")
    return PromptConditions(ar, encoder)


class LabelConditions:
    """Class labels; the null class comes after the last one."""

    def __init__(self, ar: ClassConditionalAR) -> None:
        self.config, self.device = ar.config, ar.tok_embeddings.weight.device

    def check(self, request_set: RequestSet, *, guides: bool) -> None:
        num_classes = self.config.num_classes
        for request in request_set:
            if request.label is None:
                raise UserError(
                    f"request {request.id!r} asks for a prompt, but this checkpoint draws class labels; "
                    "give a text-to-image checkpoint."
                )
            if request.label >= num_classes:
                raise UserError(
                    f"request {request.id!r} asks for class {request.label}, but the AR model has {num_classes} "
                    f"(0 to {num_classes - 1}); give a checkpoint trained on the request set's classes."
                )
        if guides and self.config.class_dropout_prob == 0:
            raise UserError(
                f"request set {request_set.benchmark!r} asks for guidance "
                f"(cfg scale {request_set.protocol.cfg_scale:g}), but the AR model has no null class; use cfg scale 1."
            )

    def key(self, request: Request) -> Key:
        return request.label

    def condition(self, key: Key) -> torch.Tensor:
        return torch.tensor([self.config.num_classes if key is None else key], device=self.device)

    def report(self) -> None:
        pass


class PromptConditions:
    """Prompts, each encoded once and alone; the null condition is the empty prompt."""

    def __init__(self, ar: TextToImageAR, encoder: TextEncoder) -> None:
        expected = (ar.config.cls_token_num, ar.config.caption_dim)
        given = (encoder.config.max_length, encoder.config.feature_dim)
        if given != expected:
            raise UserError(
                f"the text encoder gives {given[0]} tokens of {given[1]} channels, but the AR model was trained with "
                f"{expected[0]} of {expected[1]}; give the text encoder it was trained with (--text-encoder DIR)."
            )
        self.device = ar.tok_embeddings.weight.device
        self.encoder = CachingEncoder(encoder)

    def check(self, request_set: RequestSet, *, guides: bool) -> None:
        for request in request_set:
            if request.prompt is None:
                raise UserError(
                    f"request {request.id!r} asks for class {request.label}, but this checkpoint draws prompts; "
                    "give a class-conditional checkpoint."
                )
            if not request.prompt.strip():
                raise UserError(f"request {request.id!r} has an empty prompt; write what the image should show.")

    def key(self, request: Request) -> Key:
        return request.prompt

    def condition(self, key: Key) -> TextCondition:
        encoded = self.encoder.null() if key is None else self.encoder.encode([str(key)])
        mask = None if encoded.mask is None else encoded.mask.to(self.device)
        return TextCondition(features=encoded.features.to(self.device), mask=mask)

    def report(self) -> None:
        if self.encoder.num_cut:
            slots = self.encoder.config.max_length
            log.warning(
                "%d prompts were longer than %d tokens and were cut to that length.", self.encoder.num_cut, slots
            )
