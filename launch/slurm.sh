#!/usr/bin/env bash
# Trains on a SLURM cluster; JAX gives each task one GPU of its node. From the repository's root:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --time=24:00:00 \
#     launch/slurm.sh --config=configs/places.py --workdir=runs/places [--config.KEY=VALUE ...]
# SLURM sends SIGTERM before the time limit and on preemption. The run then saves a checkpoint and
# exits with code 75, and this script requeues the job, which resumes the run.
#SBATCH --job-name=deepfill
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -u
# By default, SLURM gives a task one core, which cannot decode images for a GPU.
if ((${SLURM_CPUS_PER_TASK:-1} < 2)); then
  echo "error: add --cpus-per-task=8 to sbatch: a task needs 2 cores or more to decode images." >&2
  exit 2
fi
trap : TERM # SIGTERM may reach this shell too, which must survive to requeue the job.

# The coordinator has no authentication, so it listens only at the address where JAX looks for it.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_BIND_ADDRESS=$first:$((SLURM_JOB_ID % 4096 + 61440))

# Tasks do not end at exactly the same moment: --kill-on-bad-exit would kill the slower ones, and
# their exit code would hide the 75. A task that runs a minute longer than the first one hangs.
srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  python -m deepfill_jax.main "$@"
code=$?
# A job that was cancelled, or that SLURM itself requeues, is not in the state RUNNING.
if ((code == 75)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
