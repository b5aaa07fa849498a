#!/usr/bin/env bash
# MindSpore's own launcher, without MPI: once on each node.
#   WORKERS=8 scripts/launch/ascend_msrun.sh [--dry_run] train.py --config C --data_dir D
#   WORKERS  processes on this node (8)       NODES  nodes (1)      NODE  this node's number (Slurm's, or 0)
#   MASTER   the first node's address (127.0.0.1)      PORT  its port (8118)      LOGS  folder (msrun_log)
# Ranks write to LOGS/worker_N.log; rank 0 of the first node shows here. The interpreter is the `python` of the PATH.
# msrun kills the ranks on SIGINT without notice; send SIGTERM to the ranks themselves to have them save and stop.
# Run: CPU, one node, 2 processes. Not run: Ascend, GPU, several nodes.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry_run ]; then dry_run=1; shift; fi
[ $# -gt 0 ] || { echo "error: no script; ${0##*/} [--dry_run] train.py ..." >&2; exit 2; }
workers=${WORKERS:-8} nodes=${NODES:-1} node=${NODE:-${SLURM_NODEID:-0}}
show=(); [ "$node" = 0 ] && show=(--tail_worker_log=0)
[ "$nodes" = 1 ] || show+=(--node_rank="$node")
command=(msrun --worker_num=$((workers * nodes)) --local_worker_num="$workers" --master_addr="${MASTER:-127.0.0.1}"
         --master_port="${PORT:-8118}" --join=True --log_dir="${LOGS:-msrun_log}" ${show[@]+"${show[@]}"}
         "$@" --distributed True)
if [ -n "$dry_run" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
export MS_NODE_TIMEOUT=${MS_NODE_TIMEOUT:-60} # seconds after which the scheduler gives up a silent rank, and msrun ends after a death
exec "${command[@]}"
