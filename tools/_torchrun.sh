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
address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if ((nodes == 1)) && [[ -z ${PORT:-} ]]; then
    rendezvous=(--standalone) # a free port, so that several runs fit on one machine
elif [[ ${MAX_RESTARTS:-0} != 0 ]]; then # machines may leave and come back, so they have no number
    rendezvous=(--rdzv-backend=c10d --rdzv-endpoint="$address:$port" --rdzv-id="$port")
else
    rendezvous=(--node-rank="${NODE_RANK:-0}" --master-addr="$address" --master-port="$port")
fi
command=("$python" -m mpvit.engine.torchrun --nnodes="$nodes"
    --nproc-per-node="${@:positionals+1:1}" "${rendezvous[@]}"
    ${MAX_RESTARTS:+--max-restarts="$MAX_RESTARTS"}
    "$tools/$tool" "${arguments[@]}" --launcher pytorch)
if [[ $tool != train.py ]]; then
    exec "${command[@]}"
fi

# torchrun kills its processes at a signal. So it gets none, in a process group of its own, and the
# training processes get SIGUSR1 until they have paused. They ignore it before their first step.
notify() { # the processes that torchrun started
    local stat line fields
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue # gone by now
        read -ra fields <<<"${line##*) }"                  # state and parent, after the name
        if [[ ${fields[1]} == "$torchrun" ]]; then
            kill -USR1 "${line%% *}" 2>/dev/null || true
        fi
    done
}
pause() {
    paused=yes
    trap 'kill -TERM -- "-$torchrun"' TERM INT # the second time stops at once
    while kill -0 "$torchrun" 2>/dev/null; do
        notify
        sleep 1 & # a signal interrupts `wait` but not `sleep`
        wait $! || true
    done
}
paused=
trap '' USR1
set -m
"${command[@]}" &
torchrun=$!
set +m
trap pause TERM INT HUP USR1
status=0
wait "$torchrun" || status=$?
if [[ $paused ]]; then # the signal ended the `wait`
    status=0
    wait "$torchrun" || status=$?
fi
exit "$status"
