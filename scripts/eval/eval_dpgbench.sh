#!/bin/sh
# DPG-Bench of a text-to-image model: 1,065 prompts, four images each.
#
#   MPLUG_PATH    folder of ModelScope's mplug_visual-question-answering_coco_large_en [the assets mplug-vqa-*]
#   DPG_CSV       the questions [the asset dpg-questions]
#   PROMPTS_JSON  [the asset dpg-prompts]
#   Further settings: common.sh
#
#   CKPT=gear-t2i-gpic-1b.pt VQ_CKPT=gear-vq.pt TEXT_ENCODER=Qwen/Qwen3-1.7B scripts/eval/eval_dpgbench.sh
set -eu
. "$(dirname "$0")/common.sh"

with_prompts MPLUG_PATH DPG_CSV PROMPTS_JSON
CFG_SCALE=${CFG_SCALE:-4.0}
set -- ${DPG_CSV:+--asset "dpg-questions=$DPG_CSV"} ${PROMPTS_JSON:+--asset "dpg-prompts=$PROMPTS_JSON"} "$@"
if [ -n "${MPLUG_PATH:-}" ]; then
  set -- --asset "mplug-vqa-weights=$MPLUG_PATH/pytorch_model.bin" --asset "mplug-vqa-config=$MPLUG_PATH/config.yaml" \
    --asset "mplug-vqa-bert-config=$MPLUG_PATH/config_bert.json" \
    --asset "mplug-vqa-configuration=$MPLUG_PATH/configuration.json" \
    --asset "mplug-vqa-vocabulary=$MPLUG_PATH/vocab.txt" "$@"
fi
draw dpg "$@"
