"""LlamaGen-style autoregressive transformers over image tokens; `config.py` names the sizes, `model.py` the model."""

from gear.ar.cache import KVCache
from gear.ar.config import AR_SIZES, ARConfig, ar_config
from gear.ar.model import ClassConditionalAR

__all__ = ["AR_SIZES", "ARConfig", "ClassConditionalAR", "KVCache", "ar_config"]
