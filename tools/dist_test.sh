#!/usr/bin/env bash
# Evaluate on several processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR (and PORT) on each; GPUS is per machine.
# Without a GPU the processes run on the CPU.
exec "$(dirname "$0")/_torchrun.sh" test.py 2 "$@"
