#!/usr/bin/env bash
# The measurements of the README, over a fresh cluster of release binaries.
# Every write is on disk before it is acknowledged, every read is linearizable.
set -euo pipefail

work=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-bench.XXXXXX")
DATA=$work
source "$(dirname "$0")/nodes.sh"
find_ports
trap 'stop_everything; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

for number in $(seq "$NODES"); do start_node "$number" >>"$work/node$number.log"; done
wait_for "a leader and all members" all_ready

measure() {
    printf '\n== bench %s\n' "$*"
    cli bench --duration "${DURATION:-10s}" "$@"
}
measure --clients 50 --read-share 0
measure --clients 1 --read-share 0
measure --clients 50 --read-share 1
measure --clients 50 --read-share 0.5 --pipeline 16
echo
cli status
