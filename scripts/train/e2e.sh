#!/bin/sh
# GEAR from nothing: stage 0 (tokenizer warm-up), then stage 1 (end to end). The same call again continues.
#
#   DATA_DIR  training images as DIR/<class>/<image>; unset: the demo's digits, on a CPU in minutes
#   PRESET    configuration                       [demo, or imagenet-b-vq-lite0 when DATA_DIR is set]
#   OUT_DIR   where the runs go                   [exps]
#   SET       changes, e.g. SET="stages.e2e.steps=100 stages.e2e.batch_size=16"
set -eu

if [ -n "${DATA_DIR:-}" ]; then
  preset=${PRESET:-imagenet-b-vq-lite0}
  set -- --data-dir "$DATA_DIR"
else
  preset=${PRESET:-demo}
  set --
fi
for change in ${SET:-}; do
  set -- "$@" --set "$change"
done
out=${OUT_DIR:-exps}/$preset

python3 -m gear train tokenizer --preset "$preset" --out "$out/tokenizer" "$@"
exec python3 -m gear train e2e --preset "$preset" --init "$out/tokenizer" --out "$out/e2e" "$@"
