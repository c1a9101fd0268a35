#!/bin/sh
# The baseline of stage 2, LlamaGen-REPA: a fresh AR model on the frozen tokenizer of stage 0.
#
#   SIZE, TOKENIZER, ENCODER, IMAGE_SIZE: as in train_gear.sh
#   Further settings: common.sh
#
#   SIZE=l DATA_DIR=/data/imagenet/train scripts/train/train_ar_llamagen_repa.sh
set -eu
. "$(dirname "$0")/common.sh"

choose SIZE xl l b
choose TOKENIZER vq lfq ibq
choose ENCODER dinov2 dinov3 jepa21 siglip2 clip lite0
choose IMAGE_SIZE 256 384 512
start=$(trained "$(stage0)" train_tokenizer.sh)
run ar "imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px-llamagen-repa" \
  "$(folder ar-llamagen-repa "stage2-llamagen-repa-$TOKENIZER-$ENCODER-$SIZE-4m$(pixels)")" --tokenizer "$start" "$@"
