#!/bin/sh
# WISE_Verified of a text-to-image model: 1,000 prompts, judged by a vision-language model.
#
#   QWEN_MODEL_PATH  the judge that the harness serves: a folder or hub id [Qwen/Qwen3.5-35B-A3B]
#                    With HARNESS_JUDGE_URL, an OpenAI-compatible server that runs already, none is started.
#   JUDGE_MODEL      the name under which it is served [Qwen3.5-35B-A3B]
#   MAX_WORKERS      questions in flight [HARNESS_JUDGE_CONCURRENCY, else 96]
#   DATA_DIR         folder with WISE's three *_verified.json [the assets wise-*]
#   Further settings: common.sh
#
#   CKPT=gear-t2i-gpic-1b.pt VQ_CKPT=gear-vq.pt TEXT_ENCODER=Qwen/Qwen3-1.7B scripts/eval/eval_wise.sh
set -eu
. "$(dirname "$0")/common.sh"

with_prompts QWEN_MODEL_PATH JUDGE_MODEL MAX_WORKERS DATA_DIR
CFG_SCALE=${CFG_SCALE:-4.0}
numbers MAX_WORKERS
if [ -n "${HARNESS_JUDGE_URL:-}" ]; then
  if [ -n "${QWEN_MODEL_PATH:-}" ]; then
    echo "note: QWEN_MODEL_PATH is not used: HARNESS_JUDGE_URL names a server that runs already." >&2
  fi
else
  HARNESS_JUDGE_MODEL=${QWEN_MODEL_PATH:-${HARNESS_JUDGE_MODEL:-Qwen/Qwen3.5-35B-A3B}}
  export HARNESS_JUDGE_MODEL
  quoted export "HARNESS_JUDGE_MODEL=$HARNESS_JUDGE_MODEL"
fi
HARNESS_JUDGE_CONCURRENCY=${MAX_WORKERS:-${HARNESS_JUDGE_CONCURRENCY:-96}}
export HARNESS_JUDGE_CONCURRENCY
quoted export "HARNESS_JUDGE_CONCURRENCY=$HARNESS_JUDGE_CONCURRENCY"
set -- ${JUDGE_MODEL:+--set "wise.judge=$JUDGE_MODEL"} "$@"
if [ -n "${DATA_DIR:-}" ]; then
  set -- --asset "wise-cultural-common-sense=$DATA_DIR/cultural_common_sense_verified.json" \
    --asset "wise-spatio-temporal-reasoning=$DATA_DIR/spatio-temporal_reasoning_verified.json" \
    --asset "wise-natural-science=$DATA_DIR/natural_science_verified.json" "$@"
fi
draw wise "$@"
