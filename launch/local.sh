#!/usr/bin/env bash
# Trains on all devices of this machine with one process:
#   launch/local.sh --config=configs/places.py --workdir=runs/places [--config.KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m deepfill_jax.main "$@"
