#!/bin/sh
# Stage 0: warm up a public tokenizer with GEAR's losses.
#
#   TOKENIZER  family [vq]
#   ENCODER    lite0: without LPIPS and from scratch, so that no external file is needed
#   Further settings: common.sh
#
#   TOKENIZER=lfq DATA_DIR=/data/imagenet/train scripts/train/train_tokenizer.sh
set -eu
. "$(dirname "$0")/common.sh"

preset=imagenet-b-$TOKENIZER-$ENCODER
known "$preset"
set -- ${INIT:+--init "$INIT"} "$@"
run tokenizer "$preset" "$(stage0)" "$@"
