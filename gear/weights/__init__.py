"""Load models from a file, a folder or a hub id in any public layout.

    tokenizer = load_tokenizer("vq_ds16_c2i.pt")             # LlamaGen, Open-MAGVIT2, IBQ, GEAR, our own run folders
    ar = load_ar("exps/ar")                                  # class-conditional or text-to-image, from its tensors
    check_pair(tokenizer, ar, image_size=256)                # a UserError with the fix when they do not match

    model = open_model("hf://org/name@main")                 # inspect before loading: only names and shapes are read
    model.parts, model.dropped, model.layout                 # state dicts under our keys; what was left out, and why
    model.tokenizer_config, model.ar_config(256)             # recorded in the file, else inferred from its tensors
    model.config                                             # the RunConfig of `gear train`, or None: ask for --preset
    model.weights("tokenizer", ema=False)                    # one state dict, to start training from
    model.tokenizer(ema=True), model.ar(image_size=384)      # the models, in eval mode
    model.null_caption()                                     # of a text-to-image run, whose encoder is in config.text
    model.digest, model.phase, model.steps, model.image_size

`loading` opens models and `locate` finds their files; `layouts` splits a checkpoint into its parts; `hub_layout` reads
and writes our own folders of safetensors; `model_file` builds models; `compatibility` checks whether two of them match;
`describe` is `gear info`.
Everything is strict: a key that is missing, left over or of the wrong shape is a UserError that names it.
"""

from __future__ import annotations

from gear.weights.compatibility import check_own_codes, check_pair
from gear.weights.describe import describe
from gear.weights.layouts import PARTS
from gear.weights.loading import load_ar, load_tokenizer, open_model
from gear.weights.model_file import ModelFile

__all__ = ["PARTS", "ModelFile", "check_own_codes", "check_pair", "describe", "load_ar", "load_tokenizer", "open_model"]
