"""The settings of the scripts in train/ and eval/, which are environment variables: those known, those without effect.

    python3 scripts/settings.py SCRIPT NAME...    # NAME...: the settings that SCRIPT uses

A variable of the same family that no script knows is refused by name (exit status 2), since it would be ignored in
silence: one that begins like the reference's variables, or is almost one of them. Each known one that is set and that
SCRIPT does not use gets a line on stderr.
"""

from __future__ import annotations

import difflib
import os
import sys

OWN_ENVIRONMENT = "each scorer has an environment of its own, from its lock file"
IN_THE_MODEL = "the model's file says it"
OWN_JUDGE = "the harness starts the judge itself; see benchmarks/wise/README.md"
OTHER_TOKENIZER = "it belongs to another TOKENIZER"
OTHER_SCRIPT = "it is a setting of other scripts"

REASONS = {
    "AR_MODEL": IN_THE_MODEL,
    "TEXT_MAX_LEN": IN_THE_MODEL,
    "CACHE_DIR": "CLIP is an asset: --asset clip-vit-l-14=FILE",
    "GENEVAL_ENV": OWN_ENVIRONMENT,
    "DPG_ENV": OWN_ENVIRONMENT,
    "VLLM_PORT": OWN_JUDGE,
    "TENSOR_PARALLEL_SIZE": OWN_JUDGE,
    "SERVE_TIMEOUT": OWN_JUDGE,
    **{f"{family}_{kind}": OTHER_TOKENIZER for family in ("VQ", "LFQ", "IBQ") for kind in ("INIT", "OFFICIAL_CKPT")},
    **{f"{family}_STAGE0_CKPT": "it belongs to another TOKENIZER or RECIPE" for family in ("VQ", "LFQ", "IBQ")},
    "MASTER_PORT": "the sampling processes need none",
    "OURS_CKPT": "SOURCE is official",
    "VQ_STAGE1_CKPT": "RECIPE is llamagen-repa",
}
"""Why a setting does nothing in a script of its own kind."""

_TRAINING = """
    COCO_DIR COCO_STEPS COCO_FID_CFG COCO_FID_NUM COCO_FID_PATH COCO_FID_STEPS ENCODER EPOCHS EVAL_STEPS FID_REF
    FID_REFERENCE_FILE GEAR_MODE IBQ_INIT IBQ_STAGE0_CKPT INIT LFQ_INIT LFQ_STAGE0_CKPT MASTER_ADDR MAX_TRAIN_STEPS
    NNODES NODE_RANK PRESET RECIPE SAMPLES_PER_EPOCH SET SIZE SPNORM_ALPHA STAGE1_CKPT T2I_SIZE TEMPERATURE
    VAE_ALIGN_PROJ_COEFF VAL_DATA_DIR VQ_CKPT VQ_EVAL_DATA_DIR VQ_EVAL_STEPS VQ_INIT VQ_STAGE0_CKPT VQ_STAGE1_CKPT
"""
_EVALUATION = """
    AR_MODEL BATCH_SIZE CACHE_DIR CFG_SCALE CKPT CLIP_MODEL COCO_DATASET_PATH COCO_IMAGE_SIZE DETECTOR_PATH DPG_CSV
    DPG_ENV FID_NUM GENEVAL_ENV IBQ_OFFICIAL_CKPT INCEPTION_BS JUDGE_MODEL LFQ_OFFICIAL_CKPT MAX_SAMPLES MAX_WORKERS
    MPLUG_PATH NUM_PROC NUM_PROCESSES NUM_SAMPLES OURS_CKPT OUTPUT_DIR PER_PROC_BS PROMPTS_JSON PROMPTS_JSONL
    QWEN_MODEL_PATH REF_NPZ SERVE_TIMEOUT SOURCE TENSOR_PARALLEL_SIZE TEST_STATS TEXT_ENCODER TEXT_MAX_LEN USE_EMA
    VAL_RESIZE_MODE VLLM_PORT VQ_CKPT VQ_OFFICIAL_CKPT
"""
_BOTH = "DATA_DIR EXP_NAME IMAGE_SIZE MASTER_PORT NPROC_PER_NODE OUT_DIR TOKENIZER"
TRAINING, EVALUATION, BOTH = _TRAINING.split(), _EVALUATION.split(), _BOTH.split()
EVERYWHERE = ["DRY_RUN", "NOTES"]
"""Used by all scripts. NOTES=0 turns the lines on stderr off."""

_BEGINNINGS = """
    COCO_ DPG_ EVAL_ FID_ GENEVAL_ IBQ_ LFQ_ MPLUG_ PER_PROC_ PROMPTS_ SAMPLES_PER_ SPNORM_ STAGE0_ STAGE1_ STAGE2_
    VAE_ALIGN_ VAL_DATA_ VQ_
"""
FAMILY = tuple(_BEGINNINGS.split())
"""Beginnings that the reference's variables have and hardly anybody else's: not MASTER_, IMAGE_ or VLLM_."""
ALMOST = 0.9
"""Names this alike (difflib's ratio) differ by a letter or two."""


def unknown(name: str, known: list[str]) -> str | None:
    """What is wrong with a variable that no script knows; None where it is not one of the family."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=ALMOST)
    if near:
        return f"no script has a setting {name}; did you mean {near[0]}?"
    beginning = next((start for start in FAMILY if name.startswith(start)), None)
    if beginning is None:
        return None
    alike = ", ".join(sorted(other for other in known if other.startswith(beginning))) or "docs/coming-from-gear.md"
    return f"no script has a setting {name}; unset it, or choose from {alike}."


def main(script: str, used: list[str]) -> int:
    """The exit status."""
    known = sorted({*TRAINING, *EVALUATION, *BOTH, *EVERYWHERE, *used})
    given = sorted(name for name, value in os.environ.items() if value)
    for name in given:
        if name not in known and (problem := unknown(name, known)):
            print(f"error: {problem}", file=sys.stderr)
            return 2
    own = TRAINING if script.startswith("train_") else EVALUATION
    for name in given if os.environ.get("NOTES") != "0" else []:
        if name in known and name not in (*used, *EVERYWHERE):
            why = REASONS.get(name, OTHER_SCRIPT) if name in (*own, *BOTH) else OTHER_SCRIPT
            print(f"note: {script} does not use {name}: {why}.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
