#!/usr/bin/env bash
# One machine, mpirun (OpenMPI): RANKS=2 scripts/launch/single_node.sh [--dry_run] train.py --config C --data_dir D
#   RANKS    processes, one per device (default 2)
#   MPIRUN   the launcher (default mpirun)      PYTHON   the interpreter (default python)
# SIGTERM and Ctrl-C reach the ranks as SIGUSR1 and SIGUSR2, which cluster.py turns back: they may save and stop. Sent
# to a bare mpirun, they end the ranks within half a second.
# Run: CPU, 2 processes. Not run: GPU, Ascend.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry_run ]; then dry_run=1; shift; fi
[ $# -gt 0 ] || { echo "error: no script; ${0##*/} [--dry_run] train.py ..." >&2; exit 2; }
command=("${MPIRUN:-mpirun}" -n "${RANKS:-2}" ${HOSTFILE:+--hostfile "$HOSTFILE"} "${PYTHON:-python}" "$@"
         --distributed True)
if [ -n "$dry_run" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi

set -m # a process group of its own: Ctrl-C is for this script to pass on
"${command[@]}" </dev/null & job=$!
trap 'kill -USR1 $job' TERM
trap 'kill -USR2 $job' INT
code=0
wait "$job" || code=$?
while kill -0 "$job" 2>/dev/null; do code=0; wait "$job" || code=$?; done # a signal ends a wait, not the job
exit "$code"
