#!/usr/bin/env bash
# Checks, times, profiles and trains on the machine's accelerator; see benchmarks/README.md.
#
#   benchmarks/gpu/run_all.sh OUT [--steps "goldens speed torch_peer profile_step train"]
#       [--photos FOLDER] [--minutes 8] [--tiny] [-- OPTIONS OF train.py]
#
# Each step writes its results to OUT as it gets them, and a step that fails stops no other; the exit
# code says whether one did. What is large goes to OUT.work: compiled programs, traces, checkpoints;
# the same command goes on from there. --tiny only exercises the scripts, within a minute on a CPU.
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
: "${steps:=goldens speed torch_peer profile_step ${photos:+train}}"

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$out.work
mkdir -p "$out" "$work"
export PYTHONPATH=$root:$root/tests PYTHONUNBUFFERED=1
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/compiled}

goldens=() speed=() torch_peer=() train=(--photos "$photos" --minutes "$minutes")
profile_step=(--training 256x16 --precisions bfloat16)
if [[ $tiny ]]; then
  goldens=(--tests gated_convolution_is_mmagics --goldens)
  speed=(--width 2 --precisions bfloat16 --training 32x2 --inference 32x1 --rounds 2)
  torch_peer=(--width 2 --precisions float32 --training 72x1 --inference 72x1 --rounds 2)
  profile_step=(--width 2 --precisions bfloat16 --training 32x2)
  train+=(--width 2 --phases 32:2:0.5:0 40:2:0.5:0)
fi
train+=("${train_options[@]}")

failed=()
for step in $steps; do
  case $step in
    goldens | speed | torch_peer | profile_step | train) ;;
    *) echo "Unknown step $step." >&2; exit 2 ;;
  esac
  echo "== $step"
  arguments=("$out")
  case $step in profile_step | train) arguments+=("$work/$step") ;; esac
  declare -n chosen=$step
  "${PYTHON:-python3}" "$root/benchmarks/gpu/$step.py" "${arguments[@]}" "${chosen[@]}" ||
    failed+=("$step")
done
[[ ${failed[*]} ]] && { echo "Failed: ${failed[*]}." >&2; exit 1; }
exit 0
