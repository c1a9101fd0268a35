# Shared by the training scripts: reads their settings, and starts `gear train` on one or many processes.
# Settings of all scripts:
#
#   DATA_DIR          training images as DIR/<class>/<image>, or DIR with tar shards for text-to-image;
#                     unset: the demo's digits, on a CPU in minutes
#   OUT_DIR           where the runs go [exps]
#   INIT              the model to start from, if not the run of the stage before
#   PRESET            a preset or YAML file instead of the one that the settings name; its runs go to OUT_DIR/<its name>
#   SET               further changes, as in SET="stages.e2e.steps=100 engine.compile=true"
#   MAX_TRAIN_STEPS   length of the stage in updates [the preset's]
#   EVAL_STEPS        updates between Frechet distances of samples [0: none; 50000 with FID_REFERENCE_FILE, their
#                     reference]
#   VQ_EVAL_STEPS     updates between reconstruction metrics [0: none; with VQ_EVAL_DATA_DIR, the validation images,
#                     25000 in stage 0 and 50000 in stage 1]
#   NPROC_PER_NODE    processes on this machine [its GPUs, else 1]
#   NNODES [1]  NODE_RANK [0]  MASTER_ADDR [127.0.0.1]  MASTER_PORT [29500]
#   DRY_RUN           1: print the command and do nothing
#
# Run a script again to resume an interrupted run. Arguments are passed to `gear train`. Exit status: that of `gear`; 2
# for an unknown setting.

# Where a setting is part of a preset's name (SIZE, TOKENIZER, ENCODER, IMAGE_SIZE, ...), `gear presets` lists its
# values; gear refuses others.

OUT_DIR=${OUT_DIR:-exps}
SIZE=${SIZE:-xl} TOKENIZER=${TOKENIZER:-vq} ENCODER=${ENCODER:-dinov2} IMAGE_SIZE=${IMAGE_SIZE:-256}

fail() {
  echo "error: $*" >&2
  exit 2
}

# choose NAME DEFAULT OTHER...: the setting NAME is DEFAULT if unset, and must be one of these
choose() {
  name=$1; shift
  eval "value=\${$name:-$1}"
  for known in "$@"; do
    if [ "$value" = "$known" ]; then eval "$name=\$value"; return; fi
  done
  fail "$name is '$value'; choose one of $(echo "$*" | sed 's/ /, /g')."
}

# known PRESET...: gear has presets of these names; else exit with gear's message, which lists the choices, and status 2
known() {
  for name in "$@"; do
    python3 -m gear presets --check -- "$name" || exit $?
  done
}

# numbers NAME...: these settings are numbers, if they are set
numbers() {
  for name in "$@"; do
    eval "value=\${$name:-0}"
    case $value in
      *[!0-9.e-]* | . | *.*.*) fail "$name is '$value'; it must be a number." ;;
    esac
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

# trained FOLDER SCRIPT: INIT, else the finished run in FOLDER, which SCRIPT trains
trained() {
  if [ -n "${INIT:-}" ]; then echo "$INIT"; return; fi
  if [ "${DRY_RUN:-0}" != 1 ] && [ ! -e "$1/model.pt" ]; then
    fail "$1 holds no finished model; train it with scripts/train/$2, or name another with INIT."
  fi
  echo "$1"
}

# run PHASE PRESET FOLDER ARGUMENT...: the stage PHASE with this preset
run() {
  phase=$1; preset=$2; out=$3; shift 3
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
  found=$(nvidia-smi -L 2>/dev/null | wc -l)
  processes=${NPROC_PER_NODE:-$found}
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

# quoted WORD...: these words as one line, quoted for a shell
quoted() {
  line=
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_./:=,+-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
    esac
    line="$line $word"
  done
  echo "${line# }"
}
