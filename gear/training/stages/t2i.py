"""Stage `t2i`: the AR model of stage `ar`, conditioned on captions instead of classes.

The step is `ar_step`: next-token prediction over a frozen tokenizer's codes, plus alignment with the teacher. This
file holds what is specific to text: encoding captions, dropping some of them, and initialising the text stream.

Shapes: B images, T text slots, C width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gear.align import Projectors
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.config import RunConfig
from gear.data.loader import Batch
from gear.foreign import load_exactly
from gear.teachers import Targets
from gear.text.base import TextEncoder
from gear.tokenizers.base import Tokenizer
from gear.training.stages.ar import ARStage
from gear.training.stages.stage import Logs
from harness.contract.errors import UserError

_TEXT_INPUT = "cls_embedding.cap_proj."
_CLASS_TABLE = "cls_embedding.embedding_table."
_TEXT_STREAM = ("wqkv_text.", "wo_text.", "attention_norm_text.")


class TextToImageStage(ARStage):
    """A text-to-image AR model with its projectors; tokenizer and text encoder are frozen."""

    phase = "t2i"
    ar: TextToImageAR

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        *,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        ar: TextToImageAR,
        projectors: Projectors,
        targets: Targets,
    ) -> None:
        super().__init__(config, device, tokenizer=tokenizer, ar=ar, projectors=projectors, targets=targets)
        self.text_encoder = text_encoder
        self.null_caption = NullCaption(text_encoder.null()).to(device)
        # Kept constant for the run, since the features at fully masked positions depend on the attention kernel.
        self.modules["null_caption"] = self.null_caption

    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        return {
            **super().micro_step(batch, last=last, diagnose=diagnose),
            "captions_cut": float(self.text_encoder.num_cut),
        }

    def condition(self, batch: Batch) -> TextCondition:
        """Encode the captions, and drop some of them so that the model also learns to draw without one."""
        captions = self.text_encoder.encode(_present(batch))
        dropped = batch.dropped(self.text_encoder.config.caption_dropout)
        return captions if dropped is None else drop_captions(captions, self.null_caption(), dropped)


def _present(batch: Batch) -> list[str]:
    captions = [caption for caption in batch.captions if caption is not None]
    if len(captions) != len(batch.labels):
        raise UserError(
            "stage t2i needs captions, but these images have none; give shards with captions, or a folder with "
            "IMAGE.txt beside each image or a metadata.jsonl (`gear train t2i --help`)."
        )
    return captions


class NullCaption(nn.Module):
    """The empty caption's features (1, T, C) and mask (1, T), constant for the whole run."""

    features: Tensor
    mask: Tensor

    def __init__(self, null: TextCondition) -> None:
        super().__init__()
        self.register_buffer("features", null.features.detach().clone())
        self.register_buffer("mask", torch.as_tensor(null.mask).clone())

    def forward(self) -> TextCondition:
        return TextCondition(features=self.features, mask=self.mask)


def drop_captions(captions: TextCondition, null: TextCondition, dropped: Tensor) -> TextCondition:
    """Replace both features and mask of the `dropped` (B,) captions by those of the empty one."""
    assert captions.mask is not None and null.mask is not None
    return TextCondition(
        features=torch.where(dropped[:, None, None], null.features.to(captions.features.dtype), captions.features),
        mask=torch.where(dropped[:, None], null.mask, captions.mask),
    )


def warm_start(ar: TextToImageAR, weights: Mapping[str, Tensor], *, copy_image_stream: bool) -> None:
    """Start from another AR model: all of a text-to-image one, only the trunk of a class-conditional one.

    In the second case the caption MLP stays fresh, and the text stream is fresh or a copy of the image stream.
    Raises UserError listing every key that is missing, left over or of another shape.
    """
    if any(key.startswith(_TEXT_INPUT) for key in weights):
        load_exactly(ar, dict(weights), source="--init")
        return
    fresh = {key: value for key, value in ar.state_dict().items() if _is_text(key)}
    trunk = {key: value for key, value in weights.items() if not key.startswith(_CLASS_TABLE)}
    load_exactly(ar, {**trunk, **fresh}, source="--init")
    if copy_image_stream:
        ar.copy_image_stream_to_text()


def _is_text(key: str) -> bool:
    return key.startswith(_TEXT_INPUT) or any(part in key for part in _TEXT_STREAM)
