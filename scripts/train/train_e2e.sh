#!/bin/sh
# GEAR from the start: stage 0, then stage 1. With INIT, the model that stage 1 starts from, only stage 1.
#
#   Settings: those of train_tokenizer.sh and train_gear.sh
#
#   ENCODER=lite0 SIZE=b DATA_DIR=/data/imagenet/train scripts/train/train_e2e.sh
set -eu
here=$(dirname "$0")

if [ -z "${INIT:-}" ]; then
  # In the background, so that a signal to this script can be passed on; the script then waits until stage 0 has saved.
  sh "$here/train_tokenizer.sh" "$@" &
  trap 'kill -TERM $!' TERM INT
  wait $! || { status=0; wait $! || status=$?; exit "$status"; }
  trap - TERM INT
fi
exec sh "$here/train_gear.sh" "$@"
