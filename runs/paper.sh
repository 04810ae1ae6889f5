#!/usr/bin/env bash
# The paper's training (arXiv 2306.07952) on many machines, as far as its settings are known.
#
#   sbatch --nodes 32 --gpus-per-node 8 --ntasks-per-node 1 runs/paper.sh SELECTION OUT [RECIPE]
#
# SELECTION  output of `openmofi select`, on a file system that all machines share
# RECIPE     recipes/mofi_b16.yaml (default), mofi_l14.yaml or mofi_h14.yaml
# Under another scheduler, call torchrun in the same way on every machine.
# A job that its time limit ends (SIGTERM) saves and exits; submit it again and it goes on, also with
# another number of machines, as long as they share the batch evenly.
# Hours: not measured. docs/scale.md has the formula.
set -euo pipefail

SELECTION=${1:?usage: runs/paper.sh SELECTION OUT [RECIPE]}
OUT=${2:?usage: runs/paper.sh SELECTION OUT [RECIPE]}
REPO=$(cd "$(dirname "$0")/.." && pwd)
RECIPE=${3:-$REPO/recipes/mofi_b16.yaml}
export PATH="$REPO/.venv/bin:$PATH"
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-backend c10d --rdzv-endpoint "$FIRST:29500" --rdzv-id "$SLURM_JOB_ID" \
  -m openmofi train "$RECIPE" --data "$SELECTION" --out "$OUT" --resume
