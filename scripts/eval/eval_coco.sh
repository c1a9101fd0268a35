#!/bin/sh
# FID and CLIPScore of a text-to-image model on COCO's captions.
#
#   COCO_DATASET_PATH  folder of parquet files [the asset coco-val2017]
#   CLIP_MODEL         folder of CLIP ViT-B/32 [openai/clip-vit-base-patch32, the assets clip-vit-b32-*]
#   NUM_SAMPLES        captions, at most those of the data set [30000]
#   COCO_IMAGE_SIZE    side at which real and drawn images are compared [256]
#   INCEPTION_BS       images per call of the networks [32]
#   Further settings: common.sh
#
#   CKPT=gear-t2i-gpic-1b.pt VQ_CKPT=gear-vq.pt TEXT_ENCODER=Qwen/Qwen3-1.7B scripts/eval/eval_coco.sh
set -eu
. "$(dirname "$0")/common.sh"

with_prompts COCO_DATASET_PATH CLIP_MODEL NUM_SAMPLES COCO_IMAGE_SIZE INCEPTION_BS
CFG_SCALE=${CFG_SCALE:-1.5}
numbers NUM_SAMPLES COCO_IMAGE_SIZE INCEPTION_BS
set -- ${COCO_DATASET_PATH:+--asset "coco-val2017=$COCO_DATASET_PATH"} \
  ${NUM_SAMPLES:+--set "coco.num_samples=$NUM_SAMPLES"} \
  ${COCO_IMAGE_SIZE:+--set "coco.image_size=$COCO_IMAGE_SIZE"} ${INCEPTION_BS:+--set "coco.batch_size=$INCEPTION_BS"} "$@"
clip=${CLIP_MODEL:-openai/clip-vit-base-patch32}
if [ "$clip" != openai/clip-vit-base-patch32 ]; then
  if [ ! -d "$clip" ]; then fail "CLIP_MODEL is '$clip'; give the folder of a CLIP ViT-B/32 (see harness assets ls)."; fi
  set -- --asset "clip-vit-b32-config=$clip/config.json" --asset "clip-vit-b32-weights=$clip/model.safetensors" \
    --asset "clip-vit-b32-vocab=$clip/vocab.json" --asset "clip-vit-b32-merges=$clip/merges.txt" "$@"
fi
draw coco "$@"
