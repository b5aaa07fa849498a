#!/usr/bin/env bash
# Installs, checks style and types, and tests. --all adds the slow set: large models, every configuration for every device. Other
# arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

# timm, for the tests that hand it weights: without torchvision, which fits one build of PyTorch alone (tests/timm_models.py).
python -m pip show --quiet timm 2>/dev/null ||
    python -m pip install --quiet --disable-pip-version-check --no-deps "timm>=1.0.31,<2" ||
    echo "timm could not be installed: the tests that need it are skipped"

# MindSpore compiles a graph by millions of small allocations, in huge pages in four fifths of the time. (With jemalloc or
# tcmalloc in two thirds, but MindSpore 2.10 then computes wrong losses operator by operator.)
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

chosen=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    chosen=()
    shift
fi
echo "== ruff check: mistakes and style"
ruff check .
echo "== ruff format --check: layout"
ruff format --check .
echo "== mypy: types"
mypy
echo "== tests"
status=0
python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder --durations=10 "${chosen[@]}" "$@" || status=$?
echo "== $((SECONDS / 60)) min $((SECONDS % 60)) s"
exit "$status"
