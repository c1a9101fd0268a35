#!/bin/sh
# FD-DINOv2 of a text-to-image model on GPIC: 50,000 captions, one image each, without guidance.
#
#   PROMPTS_JSONL  [the asset gpic-prompts]
#   TEST_STATS     statistics of GPIC's test set [the asset gpic-reference]
#   Further settings: common.sh
#
#   CKPT=gear-t2i-gpic-1b.pt VQ_CKPT=gear-vq.pt TEXT_ENCODER=Qwen/Qwen3-1.7B scripts/eval/eval_gpic.sh
set -eu
. "$(dirname "$0")/common.sh"

with_prompts PROMPTS_JSONL TEST_STATS
CFG_SCALE=${CFG_SCALE:-1}
draw gpic ${PROMPTS_JSONL:+--asset "gpic-prompts=$PROMPTS_JSONL"} ${TEST_STATS:+--asset "gpic-reference=$TEST_STATS"} "$@"
