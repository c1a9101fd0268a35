#!/bin/sh
# Stage 0: warm up a public tokenizer with GEAR's losses.
#
#   TOKENIZER  vq | lfq | ibq [vq]
#   ENCODER    lite0: without LPIPS and from scratch, so that no file from outside is needed
#   Further settings: common.sh
#
#   TOKENIZER=lfq DATA_DIR=/data/imagenet/train scripts/train/train_tokenizer.sh
set -eu
. "$(dirname "$0")/common.sh"

choose TOKENIZER vq lfq ibq
choose ENCODER dinov2 dinov3 jepa21 siglip2 clip lite0
set -- ${INIT:+--init "$INIT"} "$@"
run tokenizer "imagenet-b-$TOKENIZER-$ENCODER" "$(stage0)" "$@"
