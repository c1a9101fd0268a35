#!/bin/sh
# GenEval of a text-to-image model: 553 prompts, four images each.
#
#   DETECTOR_PATH  Mask2Former's weights, or the folder with them [the asset mask2former-swin-s]
#   PROMPTS_JSONL  [the asset geneval-prompts]
#   Further settings: common.sh
#
#   CKPT=gear-t2i-gpic-1b.pt VQ_CKPT=gear-vq.pt TEXT_ENCODER=Qwen/Qwen3-1.7B scripts/eval/eval_geneval.sh
set -eu
. "$(dirname "$0")/common.sh"

with_prompts DETECTOR_PATH PROMPTS_JSONL
CFG_SCALE=${CFG_SCALE:-4.0}
detector=$(file_in DETECTOR_PATH "${DETECTOR_PATH:-}" '*.pth')
draw geneval ${detector:+--asset "mask2former-swin-s=$detector"} \
  ${PROMPTS_JSONL:+--asset "geneval-prompts=$PROMPTS_JSONL"} "$@"
