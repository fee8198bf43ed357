#!/usr/bin/env bash
# The measurements of the README, over a fresh cluster of release binaries.
# Every write is on the disks of a majority before it is acknowledged, every read
# is linearizable. DURATION (in seconds) and KEYS make it shorter.
set -euo pipefail

DURATION=${DURATION:-10}
KEYS=${KEYS:-1000000}
work=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-bench.XXXXXX")
DATA=$work
source "$(dirname "$0")/nodes.sh"
trap 'stop_everything; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# One more node will join later.
members=$NODES newcomer=$((NODES + 1))
NODES=$newcomer
find_ports
NODES=$members

start() { start_node "$1" >>"$work/node$1.log"; }
title() { printf '\n== %s\n' "$*"; }
# Milliseconds since some moment.
clock() { echo $(($(date +%s%N) / 1000000)); }
is_member() { [[ $(NODES=$newcomer cli members --output raw 2>/dev/null) == *"node$1"*voter* ]]; }
answers() { "$CACHECLI" --addr "$(client_address "$1")" get "$2" >/dev/null 2>&1; }

report_sizes() {
    local number resident
    for number in "${!pids[@]}"; do
        resident=$(awk '/VmRSS/ { printf "%d MB", $2 / 1000 }' "/proc/${pids[$number]}/status" 2>/dev/null) || true
        echo "node$number: ${resident:-unknown} resident, $(du -sm "$work/node$number" | cut -f 1) MiB on disk"
    done
}

for number in $(seq "$members"); do start "$number"; done
wait_for "a leader and all members" all_ready

leader=$(nodes_with_role leader)
leader=$(client_address "${leader#node}")
at_leader() {
    title "at the leader: bench $*"
    "$CACHECLI" --addr "$leader" bench --duration "${DURATION}s" "$@"
}
at_all_nodes() {
    title "at all nodes: bench $*"
    cli bench --duration "${DURATION}s" "$@"
}
at_leader --clients 50 --read-share 0
at_leader --clients 1 --read-share 0
at_leader --clients 50 --read-share 1
at_all_nodes --clients 50 --read-share 0
at_all_nodes --clients 50 --read-share 1
at_all_nodes --clients 50 --read-share 0.5 --pipeline 16

title "$KEYS keys of 100 B"
cli seed --keys "$KEYS" --value-bytes 100
report_sizes

title "node$newcomer joins while writes go on"
# Keys and sizes as above: everything is read back at the end.
cli bench --duration "$((2 * DURATION))s" --clients 10 --read-share 0 --value-bytes 100 >"$work/writes" 2>/dev/null &
writes=$!
begun=$(clock)
NODES=$newcomer start "$newcomer"
wait_for "node$newcomer to become a voter" is_member "$newcomer"
echo "a voter after $(($(clock) - begun)) ms"
wait "$writes"
cat "$work/writes"

title "node1 is killed, and started from its snapshot and log"
cli set probe here >/dev/null
kill -KILL "${pids[1]}"
wait "${pids[1]}" 2>/dev/null || true
begun=$(clock)
start 1
wait_for "node1 to answer" answers 1 probe
echo "the first linearizable read after $(($(clock) - begun)) ms"

title "every key is read back and checked"
cli read --keys "$KEYS" --value-bytes 100
report_sizes
echo
NODES=$newcomer cli status
