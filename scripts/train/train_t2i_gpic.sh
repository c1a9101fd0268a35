#!/bin/sh
# Text-to-image on GPIC: a fresh model on a frozen tokenizer and a frozen text encoder.
#
#   RECIPE    gear: the tokenizer of stage 1 | llamagen-repa: that of stage 0 [gear]
#   T2I_SIZE  of the text-to-image model [1b]
#   SIZE, ENCODER, TEMPERATURE, VAE_ALIGN_PROJ_COEFF: those of the run that gave the tokenizer (train_gear.sh)
#   MAX_TRAIN_STEPS [400000], EPOCHS [1], SAMPLES_PER_EPOCH [100000000]: the shortest limit applies
#   COCO_FID_PATH     COCO as parquet files with images and captions: FID and CLIPScore while training (or COCO_DIR)
#   COCO_FID_STEPS    updates between them [50000] (or COCO_STEPS)
#   COCO_FID_NUM      captions [1000]       COCO_FID_CFG  guidance of the second measurement [1.75]
#   VQ_STAGE1_CKPT (RECIPE=gear), VQ_STAGE0_CKPT (llamagen-repa)  the reference's names of INIT
#   Further settings: common.sh
#
#   RECIPE=gear INIT=exps/my-stage1 DATA_DIR=/data/gpic scripts/train/train_t2i_gpic.sh
set -eu
. "$(dirname "$0")/common.sh"

choose RECIPE gear llamagen-repa
case $RECIPE in gear) named=VQ_STAGE1_CKPT ;; *) named=VQ_STAGE0_CKPT ;; esac
common SIZE IMAGE_SIZE TEMPERATURE VAE_ALIGN_PROJ_COEFF SPNORM_ALPHA RECIPE T2I_SIZE EPOCHS SAMPLES_PER_EPOCH "$named" \
  COCO_DIR COCO_STEPS COCO_FID_PATH COCO_FID_STEPS COCO_FID_NUM COCO_FID_CFG
alias_of INIT "$named"
alias_of COCO_DIR COCO_FID_PATH
alias_of COCO_STEPS COCO_FID_STEPS
choose TOKENIZER vq  # the preset's; its data and text encoder are for one image size, too
choose IMAGE_SIZE 256
preset=t2i-gpic-$RECIPE-${T2I_SIZE:-1b}
known "$preset" "imagenet-$SIZE-$TOKENIZER-$ENCODER-${IMAGE_SIZE}px"
case $RECIPE in
  gear) start=$(trained "$(stage1)" train_gear.sh); short=t2i ;;
  llamagen-repa) start=$(trained "$(stage0)" train_tokenizer.sh); short=t2i-llamagen-repa ;;
esac
numbers EPOCHS SAMPLES_PER_EPOCH COCO_STEPS COCO_FID_NUM COCO_FID_CFG
for setting in COCO_STEPS COCO_FID_NUM COCO_FID_CFG; do
  value=''
  eval "value=\${$setting:-0}"
  if [ -z "${COCO_DIR:-}" ] && [ "$value" != 0 ]; then
    fail "$setting is set but COCO_DIR is not; name the folder of COCO's parquet files with COCO_DIR (COCO_FID_PATH)."
  fi
done
set -- ${EPOCHS:+--set "stages.t2i.epochs=$EPOCHS"} \
  ${SAMPLES_PER_EPOCH:+--set "stages.t2i.samples_per_epoch=$SAMPLES_PER_EPOCH"} \
  ${COCO_DIR:+--set "watch.coco_dir=$COCO_DIR" --set "watch.coco_every=${COCO_STEPS:-50000}"} \
  ${COCO_FID_NUM:+--set "watch.coco_images=$COCO_FID_NUM"} \
  ${COCO_FID_CFG:+--set "watch.coco_cfg_scale=$COCO_FID_CFG"} "$@"
run t2i "$preset" "$(folder "$short" "$preset")" --tokenizer "$start" "$@"
