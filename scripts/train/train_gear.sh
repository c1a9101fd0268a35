#!/bin/sh
# Stage 1, GEAR itself: tokenizer and AR model end to end, from the stage-0 run or else the published warm-up.
#
#   SIZE                  of the AR model [xl]        TOKENIZER    family [vq]
#   ENCODER               teacher [dinov2]; lite0 needs no external file
#   IMAGE_SIZE            pixels [256]                TEMPERATURE  of the soft codes [0.1]; tried: 0.1 0.05 0.01 0.005
#   VAE_ALIGN_PROJ_COEFF  weight of the alignment that reaches the tokenizer [0.5]; tried: 0.25 0.5 0.75 1.0
#   SPNORM_ALPHA          share of the spatial mean subtracted from the teacher's patches [0.6]
#   VQ_STAGE0_CKPT, LFQ_STAGE0_CKPT, IBQ_STAGE0_CKPT  the reference's names of INIT, by TOKENIZER
#   Further settings: common.sh
#
#   SIZE=l ENCODER=dinov3 DATA_DIR=/data/imagenet/train scripts/train/train_gear.sh
set -eu
. "$(dirname "$0")/common.sh"

named=$(upper "$TOKENIZER")_STAGE0_CKPT
common SIZE IMAGE_SIZE TEMPERATURE VAE_ALIGN_PROJ_COEFF SPNORM_ALPHA "$named"
preset=imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px
known "$preset"
alias_of INIT "$named"
# Only the recipes on ImageNet have published warm-ups; anything else starts from a stage-0 run. One that was begun is
# not passed over: with the published warm-up in its place the user's own would be lost unnoticed.
if [ -n "${PRESET:-}${INIT:-}" ] || [ -z "${DATA_DIR:-}" ] || [ "$ENCODER" = lite0 ] || [ -d "$(stage0)" ]; then
  start=$(trained "$(stage0)" train_tokenizer.sh)
  set -- --init "$start" "$@"
fi
run e2e "$preset" "$(stage1)" "$@"
