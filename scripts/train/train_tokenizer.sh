#!/bin/sh
# Stage 0: warm up a public tokenizer with GEAR's losses.
#
#   TOKENIZER  family [vq]
#   ENCODER    lite0: without LPIPS and from scratch, so that no external file is needed
#   VQ_INIT, LFQ_INIT, IBQ_INIT  the reference's names of INIT, by TOKENIZER
#   Further settings: common.sh
#
#   TOKENIZER=lfq DATA_DIR=/data/imagenet/train scripts/train/train_tokenizer.sh
set -eu
. "$(dirname "$0")/common.sh"

named=$(upper "$TOKENIZER")_INIT
common SPNORM_ALPHA "$named"
preset=imagenet-b-$TOKENIZER-$ENCODER
known "$preset"
alias_of INIT "$named"
set -- ${INIT:+--init "$INIT"} "$@"
run tokenizer "$preset" "$(stage0)" "$@"
