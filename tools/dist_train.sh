#!/usr/bin/env bash
# Train on several processes: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR (and PORT) on each; GPUS is per machine.
# Without a GPU the processes run on the CPU.
exec "$(dirname "$0")/_torchrun.sh" train.py 1 "$@"
