# Sourced by the other scripts: go to the project's folder, make .venv and install what requirements.txt names, once.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.10 python3.9; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.9 to 3.12 is needed (MindSpore has no wheels for others); found $(python3 --version 2>&1)." \
        "Set PYTHON=/path/to/python3.11" >&2
    return 2
}

if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || exit 2
    echo "== making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
if ! cmp -s <(cat requirements.txt pyproject.toml) .venv/installed; then
    echo "== installing requirements.txt"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cat requirements.txt pyproject.toml >.venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
