#!/usr/bin/env bash
# install.sh ENVIRONMENT LOCK: a Python environment that has just what a lock file
# names, by its hashes. Who changes a lock file (uv writes them, with --universal and
# --generate-hashes) gets a new environment.
set -euo pipefail

rm -rf "$1"
python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --require-hashes --only-binary :all: -r "$2"
cp "$2" "$1/installed"
echo "$1"
