#!/bin/bash
# One stage of training on one node or several, requeued until it is done. The run folder must be on a file system that
# all nodes share.
#
#   sbatch [--nodes=N] [other options] scripts/train/slurm/train.sh train e2e --preset imagenet-xl-vq ... --out ...
#
# What to change for a cluster: --gres, --time, --partition, and PYTHON (an interpreter with gear installed).
#   PYTHON        [python3]
#   NPROC         processes on each node          [its GPUs; one where there is none]
#   PORT          where the nodes meet, on the first of them   [from the job's id]
#   MAX_REQUEUE   how often the job may be requeued after it saved and stopped   [1000]
#
# One task per node starts torchrun's agent, which starts one process per GPU.
# Two minutes before the time limit Slurm sends SIGUSR1; training saves a checkpoint and ends with status 75, and the
# job requeues itself under the same id. If the time runs out sooner, or a node fails, training resumes from the
# last checkpoint.
#SBATCH --job-name=gear
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=gear-%j.log
set -u

if [ $# -eq 0 ]; then
  echo "usage: sbatch [--nodes=N] scripts/train/slurm/train.sh train STAGE ... (see gear train --help)" >&2
  exit 2
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
nproc=${NPROC:-$((gpus > 0 ? gpus : 1))}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=${PORT:-$((10000 + SLURM_JOB_ID % 20000))}  # below the ports that the system gives to outgoing connections

# Every node saves and ends on its own: srun must not kill the others when the first one ends with 75.
srun --kill-on-bad-exit=0 "${PYTHON:-python3}" -m gear.training.launch \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$nproc" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$head:$port" "$@" &
step=$!
trap 'echo "Slurm sent a signal: saving"; kill -USR1 $step' USR1 TERM
# A trapped signal ends `wait` early: wait until the step itself has ended.
while kill -0 $step 2>/dev/null; do
  wait $step
  status=$?
done

if [ "$status" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_REQUEUE:-1000}" ]; then
  echo "saved and stopped: requeued"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
