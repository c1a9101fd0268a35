#!/bin/bash
# One stage of training on one node, queued again until it is done.
#
#   sbatch [sbatch's options] scripts/train/slurm/one-node.sh train e2e --preset imagenet-xl-vq --init ... --out ...
#
# What to change for a cluster: --gres, --time, --partition, and PYTHON (an interpreter with gear installed).
#   PYTHON        [python3]
#   NPROC         processes on the node           [its GPUs; one where there is none]
#   MAX_REQUEUE   how often the job may be queued again after a stop that saved   [1000]
#
# Two minutes before the time limit Slurm sends SIGUSR1; training saves, ends with 75, and the job queues itself again
# under the same id. Where the time is up sooner, or the node dies, the last checkpoint is where it goes on.
#SBATCH --job-name=gear
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=gear-%j.log
set -u

if [ $# -eq 0 ]; then
  echo "usage: sbatch $0 train STAGE ... (see gear train --help)" >&2
  exit 2
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
nproc=${NPROC:-$((gpus > 0 ? gpus : 1))}

srun --kill-on-bad-exit=1 "${PYTHON:-python3}" -m gear.training.launch --standalone --nproc-per-node "$nproc" "$@" &
step=$!
trap 'echo "saving, as Slurm asked"; kill -USR1 $step' USR1 TERM
# A trapped signal ends `wait` early: wait until the step itself has ended.
while kill -0 $step 2>/dev/null; do
  wait $step
  status=$?
done

if [ "$status" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_REQUEUE:-1000}" ]; then
  echo "stopped after saving: queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
