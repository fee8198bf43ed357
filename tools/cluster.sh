#!/usr/bin/env bash
# A cluster in this terminal, until Ctrl-C. The data stays; the next start goes
# on with it.
set -euo pipefail
source "$(dirname "$0")/nodes.sh"

# Puts the node's name in front of each line. It goes on reading after Ctrl-C,
# to show how the node ends.
with_name() {
    trap '' INT TERM
    local line
    while IFS= read -r line; do printf '%s | %s\n' "$1" "$line"; done
}

finish() {
    trap '' INT TERM
    echo "Stopping."
    stop_everything
    echo "All nodes have stopped. 'make cluster' goes on with the data in $DATA."
    exit 0
}
trap finish INT TERM
trap stop_everything EXIT

check_ports
for number in $(seq "$NODES"); do
    start_node "$number" > >(with_name "node$number")
done
wait_for "a leader and all members" all_ready

echo
for number in $(seq "$NODES"); do
    cat <<END
node$number   process ${pids[$number]}
    $CACHECLI --addr $(client_address "$number") set greeting hello
    $CACHECLI --addr $(client_address "$number") get greeting
    kill -9 ${pids[$number]}
END
done
cat <<END

All at a glance:   $CACHECLI --addr $(all_addresses) status
The cluster of $NODES is ready. Ctrl-C stops it.
END

# A node that is killed does not end the others.
while ((${#pids[@]} > 0)); do
    for number in "${!pids[@]}"; do
        runs "${pids[$number]}" && continue
        unset "pids[$number]"
        echo "node$number has ended. To start it again, in another terminal:"
        echo "    make node$number${OVERRIDES:+ $OVERRIDES}"
    done
    # A wait that a signal can end at once.
    sleep 0.5 &
    { wait $! || true; } 2>/dev/null
done
echo "No node is left here."
