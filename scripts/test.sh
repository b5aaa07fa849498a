#!/usr/bin/env bash
# Installs, lints and tests. --all adds the slow set: large models, every configuration for every device. Other
# arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

chosen=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    chosen=()
    shift
fi
echo "== lint"
ruff check .
echo "== tests"
exec python -m pytest -q -n 2 --dist worksteal --durations=10 "${chosen[@]}" "$@"
