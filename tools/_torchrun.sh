#!/usr/bin/env bash
# Start a tool under torchrun: _torchrun.sh TOOL POSITIONALS POSITIONAL... PROCESSES [ARGUMENT...]
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
tool=$1 positionals=$2
shift 2
if (($# <= positionals)) || ! [[ ${!positionals+x} && ${@:positionals+1:1} =~ ^[1-9][0-9]*$ ]]; then
    name=dist_${tool%.py}.sh
    sed -n "2,4s/^# //p" "$tools/$name" >&2
    echo "error: $name needs a number of processes after the first $positionals argument(s)" >&2
    exit 2
fi
arguments=("${@:1:positionals}" "${@:positionals+2}")
# the project's own environment where `make setup` made one and no other is active
python=python
if [[ -z ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} && -x $tools/../.venv/bin/python ]]; then
    python=$tools/../.venv/bin/python
fi
nodes=${NNODES:-1}
if ((nodes > 1)) && [[ -z ${MASTER_ADDR:-} ]]; then
    echo "error: NNODES=$nodes needs MASTER_ADDR, the address of the first machine" >&2
    exit 2
fi
if ((nodes == 1)) && [[ -z ${PORT:-} ]]; then
    rendezvous=(--standalone) # a free port, so that several runs fit on one machine
else
    rendezvous=(--node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}"
        --master-port="${PORT:-29500}")
fi
exec "$python" -m torch.distributed.run --nnodes="$nodes" --nproc-per-node="${@:positionals+1:1}" \
    "${rendezvous[@]}" "$tools/$tool" "${arguments[@]}" --launcher pytorch
