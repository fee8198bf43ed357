#!/usr/bin/env bash
# The main job, from beginning to end: a cluster takes writes, loses a node to
# kill -9, has every write it acknowledged, and is whole again.
set -euo pipefail

work=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-demo.XXXXXX")
DATA=$work
source "$(dirname "$0")/nodes.sh"
find_ports

story() { printf '\n== %s\n' "$*"; }
start() { start_node "$1" >>"$work/node$1.log"; }

finish() {
    local code=$?
    trap - EXIT
    kill "$watchdog" 2>/dev/null || true
    stop_everything
    if ((code != 0)); then
        echo "The demo failed. What the nodes said:" >&2
        tail -n 30 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'echo "The demo took too long." >&2; exit 1' TERM
# Over all, for what no wait of its own catches.
(sleep 300 & trap 'kill $!' TERM; wait $! && kill -TERM $$) &
watchdog=$!

if ((NODES == 1)); then
    story "A node, with its data in $work"
else
    story "A cluster of $NODES nodes, with their data in $work"
fi
for number in $(seq "$NODES"); do
    start "$number"
    echo "node$number serves on $(client_address "$number")"
done
wait_for "a leader and all members" all_ready
leader=$(nodes_with_role leader)
echo "$leader leads."

story "Ten values are written through the leader: each is answered once it is on disk, of a majority if there are several"
cli runset

if ((NODES > 1)); then
    story "They are read from a follower: any node answers any request, with what is true now"
else
    story "They are read back"
fi
cli runget

number=${leader#node}
killed=${pids[$number]}
story "kill -9 $killed: $leader is gone without a word"
unset "pids[$number]"
kill -KILL "$killed"
wait "$killed" 2>/dev/null || true

if ((NODES > 1)); then
    wait_for "another leader" has_leader
    echo "$(nodes_with_role leader) leads now."

    story "Nothing that was acknowledged is lost, and writing goes on"
    wait_for "an answer" cli get K_0 >/dev/null
    cli runget
    cli set written_meanwhile "$leader was away"
fi

story "$leader is started again, on the disk it left behind"
start "$number"
wait_for "$leader to catch up" all_ready
"$CACHECLI" --addr "$(client_address "$number")" runget
if ((NODES > 1)); then
    echo "written_meanwhile = $("$CACHECLI" --addr "$(client_address "$number")" get written_meanwhile)"
fi

story "All is well"
cli status

story "Every node is asked to stop"
for number in "${!pids[@]}"; do stop_node "$number"; done
echo "Done."
