#!/usr/bin/env bash
# Trains on a SLURM cluster; JAX gives each task one GPU of its node. In the repository's folder:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --time=24:00:00 \
#     launch/slurm.sh --config=configs/places.py --workdir=runs/places [--config.KEY=VALUE ...]
# Near its end, or to make room for another job, SLURM sends TERM. The training saves and ends with
# code 75, and the same job waits for its next turn.
#SBATCH --job-name=deepfill
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -u
trap : TERM # Whoever signals this shell too must not keep it from asking for the next turn.

# Where JAX looks for its coordinator, and the only address where it shall listen: it asks nobody
# for a password.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_BIND_ADDRESS=$first:$((SLURM_JOB_ID % 4096 + 61440))

# Tasks end together, but not at the same moment: --kill-on-bad-exit would kill the slower ones,
# and their code would hide the 75. A minute after the first has ended, the others are hanging.
srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -m deepfill_jax.main "$@"
code=$?
# A job that somebody has cancelled, or that SLURM is requeuing itself, is no longer RUNNING.
if ((code == 75)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
