#!/usr/bin/env bash
# Trains with several processes on this machine, to test a cluster setup (needs bash 5.1 or newer):
#   launch/processes.sh 2 --config=configs/places.py --workdir=runs/places [--config.KEY=VALUE ...]
# On a machine with NVIDIA GPUs, each process gets one. SIGTERM and SIGINT are forwarded to all
# processes as SIGTERM. When one process fails, the others are terminated within 10 seconds, and the
# script exits with the code of the process that failed first.
set -u
cd "$(dirname "$0")/.." || exit
number=${1:?The first argument must be the number of processes.}
shift

port=$((20000 + RANDOM % 10000))
while (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do ((port++)); done # The port is in use.
gpus=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)}
read -ra gpus <<<"${gpus//[$',\n']/ }"
((${#gpus[@]})) && : "${gpus[number - 1]:?There are fewer GPUs than processes.}"

processes=()
signal() { kill -s "$1" "${processes[@]}" 2>/dev/null; }
trap 'signal TERM' TERM INT # INT is not forwarded as INT: bash makes background jobs ignore it.
for ((i = 0; i < number; i++)); do
  ((${#gpus[@]})) && export CUDA_VISIBLE_DEVICES=${gpus[i]}
  python -m deepfill_jax.main --coordinator="127.0.0.1:$port" \
    --num_processes="$number" --process_id="$i" "$@" &
  processes+=($!)
done

for ((code = 0, left = number; left && !code; )); do
  wait -n -p ended
  code=$?
  if [[ ${ended-} ]]; then ((left--)); else code=0; fi # A signal interrupted `wait`.
done
if ((code)); then
  signal TERM
  for ((tenths = 0; tenths < 100; tenths++)); do signal 0 && sleep 0.1; done
  signal KILL
  wait
fi
exit "$code"
