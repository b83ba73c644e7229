#!/usr/bin/env bash
# Start a tool under Slurm: _srun.sh PARTITION JOB_NAME TOOL [ARGUMENT...]
set -euo pipefail
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# a training pauses at this signal (docs/train.md), so many seconds before the time limit
signal=()
if [[ $3 == train.py ]]; then
    signal=(--signal="${SIGNAL:-USR1@120}")
fi
# SRUN_ARGS and PY_ARGS hold several words each, so they are not quoted
# shellcheck disable=SC2086
exec srun --partition="$1" --job-name="$2" --gres=gpu:"$gpus_per_node" --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 "${signal[@]}" ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/$3" "${@:4}" --launcher slurm ${PY_ARGS:-}
