# Shared by the training scripts: reads their settings, and starts `gear train` on one or many processes.
# Settings of all scripts:
#
#   DATA_DIR          training images as DIR/<class>/<image>, or DIR with tar shards for text-to-image;
#                     unset: the demo's digits, on a CPU in minutes
#   OUT_DIR           where the runs go [exps]
#   EXP_NAME          name of the run below OUT_DIR [spelt from the settings, as the reference does]
#   INIT              the model to start from, if not the run of the stage before; each script also takes the
#                     reference's name of it (VQ_STAGE0_CKPT, STAGE1_CKPT, VQ_CKPT, ...)
#   PRESET            a preset or YAML file instead of the one that the settings name; its runs go to OUT_DIR/<its name>
#   SET               further changes, as in SET="stages.e2e.steps=100 engine.compile=true"
#   MAX_TRAIN_STEPS   length of the stage in updates [the preset's]
#   EVAL_STEPS        updates between Frechet distances of samples [0: none; 50000 with FID_REF, their reference]
#   VQ_EVAL_STEPS     updates between reconstruction metrics [0: none; with VAL_DATA_DIR, the validation images, 25000
#                     in stage 0 and 50000 in stage 1]
#   NPROC_PER_NODE    processes on this machine [its GPUs, else 1]
#   NNODES [1]  NODE_RANK [0]  MASTER_ADDR [127.0.0.1]  MASTER_PORT [29500]
#   DRY_RUN           1: print the command and do nothing
#   NOTES             0: no lines about settings that are set and that a script does not use
# (FID_REF and VAL_DATA_DIR are the reference's names of FID_REFERENCE_FILE and VQ_EVAL_DATA_DIR; either will do.)
#
# Run a script again to resume an interrupted run. Arguments are passed to `gear train`. Exit status: that of `gear`; 2
# for an unknown setting.

# Where a setting is part of a preset's name (SIZE, TOKENIZER, ENCODER, IMAGE_SIZE, ...), `gear presets` lists its
# values; gear refuses others.

. "$(dirname "$0")/../settings.sh"

OUT_DIR=${OUT_DIR:-exps}
SIZE=${SIZE:-xl} TOKENIZER=${TOKENIZER:-vq} ENCODER=${ENCODER:-dinov2} IMAGE_SIZE=${IMAGE_SIZE:-256}

# common NAME...: this script uses these settings and those above
common() {
  uses DATA_DIR OUT_DIR EXP_NAME INIT PRESET SET TOKENIZER ENCODER MAX_TRAIN_STEPS EVAL_STEPS FID_REF FID_REFERENCE_FILE \
    VQ_EVAL_STEPS VAL_DATA_DIR VQ_EVAL_DATA_DIR NPROC_PER_NODE NNODES NODE_RANK MASTER_ADDR MASTER_PORT "$@"
  alias_of FID_REFERENCE_FILE FID_REF
  alias_of VQ_EVAL_DATA_DIR VAL_DATA_DIR
}

# known PRESET...: gear has presets of these names; else exit with gear's message, which lists the choices, and status 2
known() {
  for name in "$@"; do
    python3 -m gear presets --check -- "$name" || exit $?
  done
}

# folder SHORT NAME: the folder of a run; SHORT is its name among the runs of one preset
folder() {
  if [ -n "${PRESET:-}" ]; then echo "$OUT_DIR/$(basename "${PRESET%.yaml}")/$1"
  elif [ -z "${DATA_DIR:-}" ]; then echo "$OUT_DIR/demo/$1"
  else echo "$OUT_DIR/$2"; fi
}

# stage0, stage1: folders of the runs that later stages start from
stage0() {
  case $ENCODER in lite0) kind=-lite0 ;; *) kind= ;; esac  # trained without LPIPS, so another run
  folder tokenizer "${TOKENIZER}16-stage0$kind-bs256-400k"
}
stage1() {
  run=stage1-$TOKENIZER-$ENCODER-$SIZE-temp${TEMPERATURE:-0.1}-coeff${VAE_ALIGN_PROJ_COEFF:-0.5}-${IMAGE_SIZE}px
  folder e2e "$run"
}

# pixels: the suffix of a stage-2 run's name if the image size is not 256
pixels() {
  if [ "$IMAGE_SIZE" != 256 ]; then echo "-${IMAGE_SIZE}px"; fi
}

# trained FOLDER SCRIPT: INIT, else the run in FOLDER, which SCRIPT trains; one that is not finished is refused
trained() {
  if [ -n "${INIT:-}" ]; then echo "$INIT"; return; fi
  if [ ! -e "$1/model.pt" ] && { [ "${DRY_RUN:-0}" != 1 ] || [ -d "$1" ]; }; then
    fail "$1 holds no finished model; train it with scripts/train/$2, or name another with INIT."
  fi
  echo "$1"
}

# run PHASE PRESET FOLDER ARGUMENT...: the stage PHASE with this preset
run() {
  phase=$1; preset=$2; out=${EXP_NAME:+$OUT_DIR/$EXP_NAME}; out=${out:-$3}; shift 3
  numbers TEMPERATURE VAE_ALIGN_PROJ_COEFF SPNORM_ALPHA MAX_TRAIN_STEPS EVAL_STEPS VQ_EVAL_STEPS
  case $phase in tokenizer) often=25000 ;; *) often=50000 ;; esac
  EVAL_STEPS=${EVAL_STEPS:-${FID_REFERENCE_FILE:+50000}}
  VQ_EVAL_STEPS=${VQ_EVAL_STEPS:-${VQ_EVAL_DATA_DIR:+$often}}
  if [ -n "${DATA_DIR:-}" ]; then set -- --data-dir "$DATA_DIR" "$@"
  elif [ "$phase" = t2i ]; then preset=digits-t2i
  else preset=demo; fi
  set -- train "$phase" --preset "${PRESET:-$preset}" --out "$out" "$@"
  if [ "$phase" = e2e ]; then
    set -- "$@" ${TEMPERATURE:+--set "gear.temperature=$TEMPERATURE"}
    set -- "$@" ${VAE_ALIGN_PROJ_COEFF:+--set "gear.tokenizer_align_coeff=$VAE_ALIGN_PROJ_COEFF"}
  fi
  set -- "$@" ${SPNORM_ALPHA:+--set "teacher.spatial_norm_alpha=$SPNORM_ALPHA"} \
    ${MAX_TRAIN_STEPS:+--set "stages.$phase.steps=$MAX_TRAIN_STEPS"} \
    ${EVAL_STEPS:+--set "watch.generation_every=$EVAL_STEPS"} \
    ${FID_REFERENCE_FILE:+--set "watch.reference=$FID_REFERENCE_FILE"} \
    ${VQ_EVAL_STEPS:+--set "watch.reconstruction_every=$VQ_EVAL_STEPS"} \
    ${VQ_EVAL_DATA_DIR:+--set "watch.validation_dir=$VQ_EVAL_DATA_DIR"}
  for change in ${SET:-}; do
    set -- "$@" --set "$change"
  done
  launch "$@"
}

# launch ARGUMENT...: `gear` itself for one process; for several, torchrun through gear.training.launch, which keeps the
# exit status
launch() {
  numbers NPROC_PER_NODE NNODES NODE_RANK MASTER_PORT
  processes=${NPROC_PER_NODE:-$(found_gpus)}
  if [ "$processes" = 0 ]; then processes=1; fi
  if [ "$processes" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
    set -- python3 -m gear "$@"  # without torchrun: signals go to gear, and the exit status is its own
  else
    set -- python3 -m gear.training.launch --nproc_per_node "$processes" --nnodes "${NNODES:-1}" \
      --node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" \
      --master_port "${MASTER_PORT:-29500}" "$@"
  fi
  if [ "${DRY_RUN:-0}" = 1 ]; then quoted "$@"; else exec "$@"; fi
}
