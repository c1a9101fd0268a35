#!/bin/sh
# Text-to-image on GPIC: a fresh model on a frozen tokenizer and a frozen text encoder.
#
#   RECIPE    gear: the tokenizer of stage 1 | llamagen-repa: that of stage 0 [gear]
#   T2I_SIZE  of the text-to-image model [1b]
#   SIZE, ENCODER, TEMPERATURE, VAE_ALIGN_PROJ_COEFF: those of the run that gave the tokenizer (train_gear.sh)
#   MAX_TRAIN_STEPS [400000], EPOCHS [1], SAMPLES_PER_EPOCH [100000000]: the shortest limit applies
#   COCO_DIR  COCO as parquet files with images and captions: FID and CLIPScore while training, every COCO_STEPS updates
#             [50000]
#   Further settings: common.sh
#
#   RECIPE=gear INIT=exps/my-stage1 DATA_DIR=/data/gpic scripts/train/train_t2i_gpic.sh
set -eu
. "$(dirname "$0")/common.sh"

choose RECIPE gear llamagen-repa
choose TOKENIZER vq  # the preset's; its data and text encoder are for one image size, too
choose IMAGE_SIZE 256
preset=t2i-gpic-$RECIPE-${T2I_SIZE:-1b}
known "$preset" "imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px"
case $RECIPE in
  gear) start=$(trained "$(stage1)" train_gear.sh); short=t2i ;;
  llamagen-repa) start=$(trained "$(stage0)" train_tokenizer.sh); short=t2i-llamagen-repa ;;
esac
numbers EPOCHS SAMPLES_PER_EPOCH COCO_STEPS
if [ -z "${COCO_DIR:-}" ] && [ "${COCO_STEPS:-0}" != 0 ]; then
  fail "COCO_STEPS is set but COCO_DIR is not; name the folder of COCO's parquet files with COCO_DIR."
fi
set -- ${EPOCHS:+--set "stages.t2i.epochs=$EPOCHS"} \
  ${SAMPLES_PER_EPOCH:+--set "stages.t2i.samples_per_epoch=$SAMPLES_PER_EPOCH"} \
  ${COCO_DIR:+--set "watch.coco_dir=$COCO_DIR" --set "watch.coco_every=${COCO_STEPS:-50000}"} "$@"
run t2i "$preset" "$(folder $short "$preset")" --tokenizer "$start" "$@"
