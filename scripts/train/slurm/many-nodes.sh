#!/bin/bash
# One stage of training on several nodes, queued again until it is done. The run folder is on a shared file system.
#
#   sbatch --nodes=4 [more options] scripts/train/slurm/many-nodes.sh train e2e --preset imagenet-xl-vq ... --out ...
#
# One task a node starts torchrun's agent, and that one process per GPU; they meet at the first node.
#   PYTHON        [python3]
#   NPROC         processes on each node          [its GPUs; one where there is none]
#   PORT          where they meet                 [from the job's id]
#   MAX_REQUEUE   how often the job may be queued again after a stop that saved   [1000]
#
# Signals and requeuing as in one-node.sh.
#SBATCH --job-name=gear
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=gear-%j.log
set -u

if [ $# -eq 0 ]; then
  echo "usage: sbatch --nodes=N $0 train STAGE ... (see gear train --help)" >&2
  exit 2
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
nproc=${NPROC:-$((gpus > 0 ? gpus : 1))}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}

srun --kill-on-bad-exit=0 "${PYTHON:-python3}" -m gear.training.launch \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$nproc" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$head:$port" "$@" &
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
