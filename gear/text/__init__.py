"""Frozen text encoders: from captions to the features that a text-to-image AR is conditioned on."""

from __future__ import annotations

from gear.text.base import TextConfig, TextEncoder
from gear.text.build import build_text_encoder, weights_digest, weights_source
from gear.text.caption_cache import CachingEncoder

__all__ = ["CachingEncoder", "TextConfig", "TextEncoder", "build_text_encoder", "weights_digest", "weights_source"]
