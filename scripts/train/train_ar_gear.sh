#!/bin/sh
# Stage 2: the AR model on the frozen tokenizer of stage 1.
#
#   GEAR_MODE  ar-init: continue the AR model of stage 1 | vq-only: a fresh one on its tokenizer [ar-init]
#   SIZE, TOKENIZER, ENCODER, IMAGE_SIZE, TEMPERATURE, VAE_ALIGN_PROJ_COEFF: those of stage 1 (train_gear.sh)
#   STAGE1_CKPT  the reference's name of INIT
#   Further settings: common.sh
#
#   SIZE=l GEAR_MODE=vq-only DATA_DIR=/data/imagenet/train scripts/train/train_ar_gear.sh
set -eu
. "$(dirname "$0")/common.sh"

common SIZE IMAGE_SIZE TEMPERATURE VAE_ALIGN_PROJ_COEFF SPNORM_ALPHA GEAR_MODE STAGE1_CKPT
alias_of INIT STAGE1_CKPT
choose GEAR_MODE ar-init vq-only
preset=imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px-$GEAR_MODE
known "$preset"
start=$(trained "$(stage1)" train_gear.sh)
case $GEAR_MODE in
  ar-init) short="ar"; set -- --init "$start" "$@" ;;
  vq-only) short="ar-vq-only"; set -- --tokenizer "$start" "$@" ;;
esac
run ar "$preset" \
  "$(folder "$short" "stage2-gear-$GEAR_MODE-$TOKENIZER-$ENCODER-$SIZE$(pixels)")" "$@"
