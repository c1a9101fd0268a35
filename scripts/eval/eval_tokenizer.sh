#!/bin/sh
# rFID, PSNR, SSIM and L1 of a tokenizer on ImageNet's validation images.
#
#   DATA_DIR         the validation images [the asset imagenet-val]
#   TOKENIZER        vq, lfq or ibq [vq]
#   SOURCE           ours: OURS_CKPT | official: VQ_OFFICIAL_CKPT, LFQ_OFFICIAL_CKPT or IBQ_OFFICIAL_CKPT [ours]
#   ..._CKPT         a file, a run folder or a hub id [the published one]
#   USE_EMA          1: averaged weights, 0: live ones [1]
#   IMAGE_SIZE       [256]                           VAL_RESIZE_MODE  bicubic or bilinear [bicubic]
#   BATCH_SIZE       images per call, and per mean of L1 and PSNR [32]
#   MAX_SAMPLES      images; 0: all [0]              OUT_DIR  where runs go [runs]
#   NPROC_PER_NODE   GPUs [those of this machine, else 1]
#   EXP_NAME, DRY_RUN, NOTES, arguments: common.sh
#
#   TOKENIZER=lfq DATA_DIR=/data/imagenet/val scripts/eval/eval_tokenizer.sh
set -eu
. "$(dirname "$0")/common.sh"

choose TOKENIZER vq lfq ibq
choose SOURCE ours official
case $SOURCE in ours) named=OURS_CKPT ;; official) named=$(upper "$TOKENIZER")_OFFICIAL_CKPT ;; esac
uses DATA_DIR TOKENIZER SOURCE "$named" USE_EMA IMAGE_SIZE VAL_RESIZE_MODE BATCH_SIZE MAX_SAMPLES OUT_DIR EXP_NAME \
  NPROC_PER_NODE
choose USE_EMA 1 0
choose VAL_RESIZE_MODE bicubic bilinear
numbers IMAGE_SIZE BATCH_SIZE MAX_SAMPLES NPROC_PER_NODE
case $SOURCE-$TOKENIZER in
  ours-*) published=BinLin203/GEAR-$(upper "$TOKENIZER")/gear-$TOKENIZER.pt ;;
  official-vq) published=FoundationVision/LlamaGen/vq_ds16_c2i.pt ;;
  official-lfq) published=TencentARC/Open-MAGVIT2-Tokenizer-16384-Pretrain/pretrain256_16384.ckpt ;;
  official-ibq) published=TencentARC/IBQ-Tokenizer-16384-Pretrain/IBQ_pretrain_16384.ckpt ;;
esac
source=''
eval "source=\${$named:-hf://$published}"
case $USE_EMA in 1) ema=true ;; *) ema=false ;; esac
if [ "${MAX_SAMPLES:-0}" = 0 ]; then MAX_SAMPLES=; fi
NUM_PROC=${NPROC_PER_NODE:-}
OUTPUT_DIR=${OUT_DIR:-}
evaluate recon --tokenizer "$source" ${DATA_DIR:+--asset "imagenet-val=$DATA_DIR"} \
  --protocol "image_size=${IMAGE_SIZE:-256}" --set "recon.ema=$ema" --set "recon.resize=$VAL_RESIZE_MODE" \
  ${BATCH_SIZE:+--set "recon.batch_size=$BATCH_SIZE" --set "recon.mean_batch=$BATCH_SIZE"} \
  ${MAX_SAMPLES:+--limit "$MAX_SAMPLES"} "$@"
