"""GEAR: one codebook read twice. Tokenizers, autoregressive models, training and sampling."""

__version__ = "0.1.0"
