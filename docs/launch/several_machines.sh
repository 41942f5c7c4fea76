#!/bin/sh
# One training over several machines. The same line on each, in a folder that all of them can reach:
#
#   NODES=2 PROCESSES=8 FIRST=first-machine:29400 docs/launch/several_machines.sh distill --teacher … --output …
#
# NODES: machines. PROCESSES: accelerators of each, one process to one. FIRST: a name and a free port of one of them.
set -eu
exec torchrun --nnodes "${NODES:?how many machines}" --nproc-per-node "${PROCESSES:?how many processes on each}" \
    --rdzv-id gradistill --rdzv-backend c10d --rdzv-endpoint "${FIRST:?the first machine, as name:port}" \
    -m gradistill "$@"
