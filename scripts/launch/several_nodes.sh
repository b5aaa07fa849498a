#!/usr/bin/env bash
# Several machines, mpirun (OpenMPI) over ssh; code, environment and data lie at the same absolute paths everywhere.
#   HOSTFILE=hosts RANKS=16 PYTHON=$PWD/.venv/bin/python scripts/launch/several_nodes.sh [--dry_run] train.py ...
#   HOSTFILE lines "node1 slots=8"; RANKS processes in all, one per device; the rest as in single_node.sh
# On CPU the ranks meet at the first node's main network address; MS_SCHED_HOST names another one there.
# Run: one machine as its own hostfile, CPU. Not run: several machines, GPU, Ascend.
set -euo pipefail
[ -r "${HOSTFILE:-}" ] || { echo "error: HOSTFILE '${HOSTFILE:-}' is no file; lines: node1 slots=8" >&2; exit 2; }
[ -n "${RANKS:-}" ] || { echo "error: RANKS is not set: processes on all nodes together" >&2; exit 2; }
export HOSTFILE RANKS
exec "$(dirname "$0")/single_node.sh" "$@"
