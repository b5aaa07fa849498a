#!/usr/bin/env bash
# Ascend, mpirun: RANKS=8 scripts/launch/ascend_mpirun.sh [--dry_run] train.py --config C --data_dir D
#   HOSTFILE (optional), RANKS, MPIRUN, PYTHON and signals as in single_node.sh; needs the OpenMPI that MindSpore's
#   HCCL library was built with. Rank N takes device N of its node; rank tables are not needed.
# Run: nothing but --dry_run.
set -euo pipefail
export RANKS=${RANKS:-8} HCCL_CONNECT_TIMEOUT=${HCCL_CONNECT_TIMEOUT:-600} # seconds: the ranks compile for minutes
exec "$(dirname "$0")/single_node.sh" "$@" --device_target Ascend
