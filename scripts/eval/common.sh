# Shared by the evaluation scripts: they take the reference's settings and start `harness run`.
# Settings of all that draw images:
#
#   CKPT         the generator: a checkpoint, a run folder, or a hub id [exps/EXP_NAME]
#   VQ_CKPT      its tokenizer, if that is in a separate file
#   CFG_SCALE    guidance [the reference's, which is the benchmark's]
#   IMAGE_SIZE   the size it was trained at, if its file does not say
#   NUM_PROC     GPUs that draw [those of this machine, else 1]; the images do not depend on it
#   PER_PROC_BS  images computed together on each [32 on a GPU]
#   EXP_NAME     name of the run, with the benchmark's behind it [from what it does]
#   OUTPUT_DIR   where runs go [runs]
#   DRY_RUN      1: print the command and do nothing
#   NOTES        0: no lines about settings that are set and that a script does not use
#
# and of those with prompts:
#
#   TEXT_ENCODER  folder or hub id of its weights [as the model's file says]
#
# A script prints the command before it runs it. Arguments are passed to `harness run` (--limit 8, --dry-run, --set ...).
# Exit status: that of `harness run`; 2 for an unknown setting.

. "$(dirname "$0")/../settings.sh"

# with_prompts NAME...: this script uses these settings and those above
with_prompts() {
  uses CKPT VQ_CKPT CFG_SCALE IMAGE_SIZE NUM_PROC PER_PROC_BS EXP_NAME OUTPUT_DIR TEXT_ENCODER "$@"
}

# draw BENCHMARK ARGUMENT...: sample the model, and score
draw() {
  benchmark=$1; shift
  numbers CFG_SCALE IMAGE_SIZE PER_PROC_BS
  CKPT=${CKPT:-${EXP_NAME:+exps/$EXP_NAME}}
  if [ -z "$CKPT" ]; then fail "CKPT is not set; name the model: CKPT=FILE, a checkpoint or a run folder."; fi
  evaluate "$benchmark" --ckpt "$CKPT" ${VQ_CKPT:+--vq-ckpt "$VQ_CKPT"} \
    ${TEXT_ENCODER:+--text-encoder "$(hub_or_path "$TEXT_ENCODER")"} \
    --protocol "cfg_scale=$CFG_SCALE" \
    ${IMAGE_SIZE:+--draw "trained-size=$IMAGE_SIZE"} ${PER_PROC_BS:+--draw "tile=$PER_PROC_BS"} "$@"
}

# evaluate BENCHMARK ARGUMENT...: print the command, and run it
evaluate() {
  benchmark=$1; shift
  numbers NUM_PROC
  gpus=${NUM_PROC:-$(found_gpus)}
  if [ "$gpus" = 0 ]; then gpus=1; fi
  set -- python3 -m harness run --benchmark "$benchmark" --gpus "$gpus" ${EXP_NAME:+--name "$EXP_NAME-$benchmark"} \
    ${OUTPUT_DIR:+--runs "$OUTPUT_DIR"} "$@"
  quoted "$@"
  if [ "${DRY_RUN:-0}" != 1 ]; then exec "$@"; fi
}

# hub_or_path NAME: org/name is a hub id, unless it is a path here
hub_or_path() {
  case $1 in
    hf://* | /* | ./* | ../* | */*/* | *'~'*) echo "$1" ;;
    */*) if [ -e "$1" ]; then echo "$1"; else echo "hf://$1"; fi ;;
    *) echo "$1" ;;
  esac
}

# file_in SETTING PATH PATTERN: PATH, or the one file of this name in it if it is a folder
file_in() {
  if [ ! -d "$2" ]; then echo "$2"; return; fi
  file=$(find "$2" -maxdepth 1 -name "$3")
  if [ ! -f "$file" ]; then fail "$1 is $2, which does not hold one file $3; name the file."; fi
  echo "$file"
}
