#!/bin/sh
# gFID, sFID, IS, precision and recall of a class-conditional model on ImageNet: 50,000 images.
#
#   REF_NPZ        reference batch [the asset adm-imagenet256-reference]
#   TEMP           sampling temperature [1.0]
#   FID_NUM        images [50000]; fewer give numbers that compare with nobody's
#   NUM_PROCESSES  the reference's name of NUM_PROC here      OUT_DIR  of OUTPUT_DIR
#   Further settings: common.sh
#
#   CKPT=exps/stage2/checkpoints/4000000.pt VQ_CKPT=gear-vq.pt CFG_SCALE=1.75 scripts/eval/eval_gfid.sh
set -eu
. "$(dirname "$0")/common.sh"

uses CKPT VQ_CKPT CFG_SCALE TEMP IMAGE_SIZE FID_NUM REF_NPZ NUM_PROCESSES PER_PROC_BS EXP_NAME OUT_DIR
NUM_PROC=${NUM_PROCESSES:-}
OUTPUT_DIR=${OUT_DIR:-}
TEXT_ENCODER=
CFG_SCALE=${CFG_SCALE:-1.0}
numbers FID_NUM TEMP
if [ "${FID_NUM:-}" = 50000 ]; then FID_NUM=; fi  # the benchmark's own number: a limit would make it a test
draw adm --protocol "temperature=${TEMP:-1.0}" ${REF_NPZ:+--asset "adm-imagenet256-reference=$REF_NPZ"} \
  ${FID_NUM:+--limit "$FID_NUM"} "$@"
