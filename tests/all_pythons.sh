#!/bin/sh
# Every test, on each Python from 3.10 that is installed: on the path, or as pyenv keeps them.
set -eu
cd "$(dirname "$0")/.."
found=0
for minor in 10 11 12 13 14; do
    python=""
    for each in "$(command -v "python3.$minor" || true)" "$HOME"/.pyenv/versions/3."$minor".*/bin/python3; do
        # pyenv's shims exist for versions that are not there
        if [ -x "$each" ] && "$each" -c "import sys, venv; assert sys.version_info[:2] == (3, $minor)" 2>/dev/null; then
            python=$each
        fi
    done
    [ -n "$python" ] || continue
    found=$((found + 1))
    echo "== $("$python" --version)"
    make --no-print-directory test PYTHON="$python" VENV=".venv-3.$minor"
done
[ "$found" -gt 0 ] || { echo "no Python from 3.10 found" >&2; exit 1; }
echo "== $found Pythons passed"
