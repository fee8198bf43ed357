#!/usr/bin/env bash
# install.sh ENVIRONMENT: builds the clients there, of the versions that Cargo.lock
# names; cargo knows what has changed.
set -euo pipefail

CARGO_TARGET_DIR=$1 cargo build --locked --quiet --manifest-path "$(dirname "$0")/Cargo.toml"
echo "$1"
