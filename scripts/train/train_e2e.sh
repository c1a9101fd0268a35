#!/bin/sh
# GEAR from the start: stage 0, then stage 1. With INIT, the model that stage 1 starts from, only stage 1.
#
#   Settings: those of train_tokenizer.sh and train_gear.sh, but for EXP_NAME, since there are two runs
#
#   ENCODER=lite0 SIZE=b DATA_DIR=/data/imagenet/train scripts/train/train_e2e.sh
set -eu
here=$(dirname "$0")
. "$here/common.sh"

if [ -n "${EXP_NAME:-}" ]; then fail "EXP_NAME names one run, but this script makes two; set OUT_DIR instead."; fi
family=$(upper "$TOKENIZER")
common SIZE IMAGE_SIZE TEMPERATURE VAE_ALIGN_PROJ_COEFF SPNORM_ALPHA "${family}_INIT" "${family}_STAGE0_CKPT"
NOTES=0; export NOTES
start=''
eval "start=\${INIT:-\${${family}_STAGE0_CKPT:-}}"
if [ -z "$start" ]; then
  # In the background, so that a signal to this script can be passed on; the script then waits until stage 0 has saved.
  sh "$here/train_tokenizer.sh" "$@" &
  trap 'kill -TERM $!' TERM INT
  wait $! || { status=0; wait $! || status=$?; exit "$status"; }
  trap - TERM INT
  INIT=$(stage0)
  export INIT
fi
exec sh "$here/train_gear.sh" "$@"
