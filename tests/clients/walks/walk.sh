# To be sourced by walks: the way through the README of somebody else's program, with
# our nodes in the place of theirs, as our README says. Its ports are replaced by free
# ones; HOME and the current folder are a new one, which is gone afterwards.
#
#   walk.sh SECTION CLIENT_PORT PEER_PORT   of the README; the first node's ports there
set -euo pipefail

section=$1 client_port=$2 peer_port=$3
NODES=3 HOST=127.0.0.1 PORT_BASE=1 PEER_BASE=1
DATA=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-walk.XXXXXX")
root=$(cd "$(dirname "$0")/../../.." && pwd)
bin=$(cd "$(dirname "$CACHED")" && pwd)
source "$root/tools/nodes.sh"
source "$root/tests/clients/expect.sh" "$HOST" "$PORT_BASE"
trap 'stop_everything; rm -rf "$DATA" "$work"' EXIT
find_ports
# What make was told is not for the make of a walk.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
# How each node is started.
lines=()

# The commands of our README's section, one per line, with ports of our own.
commands() {
    local line number
    awk -v title="**$section**" '
        index($0, title) == 1 { inside = 1; next }
        /^(\*\*|## )/ { inside = 0 }
        inside && sub(/^    /, "") { if (sub(/\\$/, "")) printf "%s", $0; else print }' "$root/README.md" |
        while IFS= read -r line; do
            for number in 1 2 3; do
                line=${line//$((client_port + number - 1))/@client$number}
                line=${line//$((peer_port + number - 1))/@peer$number}
            done
            for number in 1 2 3; do
                line=${line//@client$number/$((PORT_BASE + number - 1))}
                line=${line//@peer$number/$((PEER_BASE + number - 1))}
            done
            echo "$line"
        done
}

# What make is told, so that it is about our nodes and builds nothing.
make_flags() {
    printf '%q ' -C "$root" --no-print-directory -o build BIN="$bin" PORT_BASE="$PORT_BASE" \
        PEER_BASE="$PEER_BASE" DATA="$DATA"
}

# typed COMMAND: as somebody would who is there.
typed() {
    cd "$DATA"
    HOME=$DATA PATH=$bin:$PATH
    eval "$1"
}

# begin NUMBER: starts a node, or starts it again.
begin() {
    typed "${lines[$1]}" >>"$DATA/$1.log" 2>&1 </dev/null &
    pids[$1]=$!
}

ready() {
    wait_for "a leader and all members" all_ready && return
    tail -n 20 "$DATA"/*.log >&2
    exit 1
}

# prints EXPECTED LINE: its lines with a comma between them; `…` is anything.
prints() {
    local found pattern
    pattern=$(sed 's/[][*?\\]/\\&/g; s/…/*/g' <<<"$1")
    found=$( (typed "timeout 60 bash -c $(printf %q "$2")") 2>"$work/errors" </dev/null | tr '\r' '\n' |
        awk '{ printf "%s%s", separator, $0; separator = ", " }') || fail "failed: $2" "$found" "$(cat "$work/errors")"
    [[ $found == $pattern ]] ||
        fail "typed:    $2" "expected: $1" "found:    $found" "$(cat "$work/errors")"
}

# start_with COMMAND: one more node.
start_with() {
    NODES=$((NODES + 1))
    lines[NODES]=$1
    begin "$NODES"
}

# Does what the README says: nodes are started; everything else waits until they are
# ready, and has to print what is behind `# `.
follow_readme() {
    local line expected
    NODES=0
    while IFS= read -r line <&4; do
        case $line in
            "cached "*) start_with "exec $line" ;;
            # What make would run, in the place of make: a node has to be a process of ours.
            "make run" | "make runfollower"?)
                start_with "cd '$root' && exec env $(eval "make -n $(make_flags) ${line#make}" | tail -n 1)"
                ;;
            *)
                ready
                expected=
                if [[ $line == *" # "* ]]; then expected=${line##* # }; fi
                line=${line%% # *}
                prints "$expected" "${line/#make /make $(make_flags)}"
                ;;
        esac
    done 4< <(commands)
    ((NODES == 3)) || fail "The README starts $NODES nodes for $section."
}

find_port_of_leader() {
    port=$(cli status --output raw 2>/dev/null | awk -F '\t' '$4 == "leader" { sub(".*:", "", $2); print $2 }')
    # Not if none leads, nor if two say so.
    [[ $port =~ ^[0-9]+$ ]]
}

# Puts the number of the node that leads into `leader`, and those of the others into
# `one` and `other`.
find_leader() {
    local port
    ready
    wait_for "a leader" find_port_of_leader
    leader=$((port - PORT_BASE + 1)) one=$(((port - PORT_BASE + 1) % 3 + 1)) other=$(((port - PORT_BASE + 2) % 3 + 1))
}

# Ends the process of a node, without a word.
murder() {
    kill -KILL "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

# eventually OUTPUT COMMAND…: prints exactly this before patience ends.
eventually() {
    local expected=$1 until=$((SECONDS + PATIENCE)) found
    shift
    until found=$("$@" 2>&1) && [[ $found == "$expected" ]]; do
        ((SECONDS < until)) || fail "asked:    $*" "expected: $expected" "found:    $found"
        sleep 0.1
    done
}
