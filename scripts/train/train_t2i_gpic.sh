#!/bin/sh
# Text-to-image on GPIC: a fresh 1B model on a frozen tokenizer and a frozen text encoder.
#
#   RECIPE  gear: the tokenizer of stage 1 | llamagen-repa: that of stage 0 [gear]
#   SIZE, TOKENIZER, ENCODER, IMAGE_SIZE, TEMPERATURE, VAE_ALIGN_PROJ_COEFF: those of that tokenizer's run
#   MAX_TRAIN_STEPS [400000], EPOCHS [1], SAMPLES_PER_EPOCH [100000000]: the shortest counts, at 256 images an update
#   Further settings: common.sh
#
#   RECIPE=gear INIT=exps/my-stage1 DATA_DIR=/data/gpic scripts/train/train_t2i_gpic.sh
set -eu
. "$(dirname "$0")/common.sh"

choose RECIPE gear llamagen-repa
choose SIZE xl l b
choose TOKENIZER vq lfq ibq
choose ENCODER dinov2 dinov3 jepa21 siglip2 clip lite0
choose IMAGE_SIZE 256 384 512
case $RECIPE in
  gear) start=$(trained "$(stage1)" train_gear.sh); short=t2i ;;
  llamagen-repa) start=$(trained "$(stage0)" train_tokenizer.sh); short=t2i-llamagen-repa ;;
esac
if [ -n "${SAMPLES_PER_EPOCH:-}${EPOCHS:-}" ]; then
  numbers SAMPLES_PER_EPOCH EPOCHS
  steps=$((${EPOCHS:-1} * ((${SAMPLES_PER_EPOCH:-100000000} + 255) / 256)))
  if [ "$steps" -lt "${MAX_TRAIN_STEPS:-400000}" ]; then MAX_TRAIN_STEPS=$steps; fi
fi
run t2i "t2i-gpic-$RECIPE" "$(folder $short "t2i-gpic-$RECIPE-1b")" --tokenizer "$start" "$@"
