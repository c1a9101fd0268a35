"""LlamaGen-style autoregressive transformers over image tokens.

`config.py` names the sizes; `model.py` holds the trunk and the class-conditional model, `t2i.py` the text-to-image one.
"""

from gear.ar.cache import KVCache
from gear.ar.config import AR_SIZES, TEXT_AR_SIZES, ARConfig, TextARConfig, ar_config, text_ar_config
from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextCondition, TextToImageAR

__all__ = [
    "AR_SIZES",
    "TEXT_AR_SIZES",
    "ARConfig",
    "ClassConditionalAR",
    "KVCache",
    "TextARConfig",
    "TextCondition",
    "TextToImageAR",
    "ar_config",
    "text_ar_config",
]
