#!/usr/bin/env bash
# install.sh ENVIRONMENT: a folder that has just what package-lock.json names, by its
# hashes, and runs none of the scripts that packages bring along. Who changes
# package-lock.json gets a new one.
set -euo pipefail

here=$(dirname "$0")
rm -rf "$1"
mkdir -p "$1"
cp "$here/package.json" "$here/package-lock.json" "$1"
npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel error
cp "$here/package-lock.json" "$1/installed"
echo "$1"
