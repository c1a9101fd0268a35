#!/bin/sh
# The baseline of stage 2, LlamaGen-REPA: a fresh AR model on the frozen tokenizer of stage 0.
#
#   SIZE, TOKENIZER, ENCODER, IMAGE_SIZE: as in train_gear.sh
#   VQ_CKPT  the reference's name of INIT
#   Further settings: common.sh
#
#   SIZE=l DATA_DIR=/data/imagenet/train scripts/train/train_ar_llamagen_repa.sh
set -eu
. "$(dirname "$0")/common.sh"

common SIZE IMAGE_SIZE SPNORM_ALPHA VQ_CKPT
alias_of INIT VQ_CKPT
preset=imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px-llamagen-repa
known "$preset"
start=$(trained "$(stage0)" train_tokenizer.sh)
run ar "$preset" \
  "$(folder ar-llamagen-repa "stage2-llamagen-repa-$TOKENIZER-$ENCODER-$SIZE-4m$(pixels)")" --tokenizer "$start" "$@"
