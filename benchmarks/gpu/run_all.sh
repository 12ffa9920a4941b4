#!/usr/bin/env bash
# Tests, times, profiles and trains on this machine's accelerator; see benchmarks/README.md.
#
#   benchmarks/gpu/run_all.sh OUT [--steps "goldens speed forms torch_peer operations train"]
#       [--photos FOLDER] [--minutes 8] [--tiny] [-- OPTIONS OF train.py]
#
# A step is a script, which appends its results to OUT/STEP.jsonl as they arrive. If a step fails,
# the others still run, and the exit code is 1. Large files go to OUT.work: compiled programs, the
# profile, checkpoints. Rerunning the command resumes from there. --tiny only tests the scripts.
set -u
out=${1:?The first argument must be the folder for results.}
shift
steps= photos= minutes=8 tiny= train_options=()
while (($#)); do
  case $1 in
    --steps) steps=$2; shift ;;
    --photos) photos=$2; shift ;;
    --minutes) minutes=$2; shift ;;
    --tiny) tiny=yes ;;
    --) shift; train_options=("$@"); break ;;
    *) echo "Unknown option $1." >&2; exit 2 ;;
  esac
  shift
done
: "${steps:=goldens speed forms torch_peer operations ${photos:+train}}"

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$out.work
mkdir -p "$out" "$work"
export PYTHONPATH=$root:$root/benchmarks:$root/tests PYTHONUNBUFFERED=1
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/compiled}

goldens=()
speed=(--precisions bfloat16 tf32 float32 --rounds 7)
speed+=(--cases training-256-{16,32,64} inference-256-16 inference-{256,512,1024,2048}-1)
# `speed` times the forms of convolutions for GPUs, and this step those for CPUs.
forms=(--form cpu --precisions bfloat16 tf32 --rounds 7)
forms+=(--cases training-256-16 inference-{256,512}-1)
torch_peer=("${speed[@]}")
operations=(--case training-256-16 --precision bfloat16)
train=()
if [[ $tiny ]]; then
  goldens=(--tests gated_convolution_matches_mmagic --goldens)
  speed=(--width 2 --rounds 2 --cases attention-32-1)
  forms=(--form cpu "${speed[@]}")
  torch_peer=(--width 2 --rounds 2 --cases training-72-1 inference-72-1)
  operations=(--width 2 --case training-32-2)
  train=(--width 2 --phases 32:2:0.5:0 40:2:0.5:0)
fi
operations+=(--trace "$work/profile")
train+=(--photos "$photos" --minutes "$minutes" --work "$work/train" "${train_options[@]}")

failed=()
for step in $steps; do
  case $step in
    speed | operations) script=$root/benchmarks/$step.py ;;
    forms) script=$root/benchmarks/speed.py ;;
    goldens | torch_peer | train) script=$root/benchmarks/gpu/$step.py ;;
    *) echo "Unknown step $step." >&2; exit 2 ;;
  esac
  echo "== $step"
  declare -n options=$step
  "${PYTHON:-python3}" "$script" --output "$out/$step.jsonl" "${options[@]}" || failed+=("$step")
done
[[ ${failed[*]} ]] && { echo "Failed: ${failed[*]}." >&2; exit 1; }
exit 0
