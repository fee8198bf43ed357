# Starting, watching and stopping the nodes of a cluster on this machine.
#
# To be sourced; the Makefile says how many nodes there are and where:
#
#   NODES      how many
#   HOST       where they listen
#   PORT_BASE  node1 serves clients here, node2 one above, and so on
#   PEER_BASE  the same for peers
#   DATA       each node keeps its data in a directory below this one
#   CACHED, CACHECLI   the two programs
#   OVERRIDES  what make was told about all these, to be repeated in hints
#
# The first node begins the cluster, each other one joins whoever is there; one
# that is a member already stays what it is. So does the first node join if its
# data was lost and another one's was not: it would begin a second cluster.

: "${NODES:?}" "${HOST:?}" "${PORT_BASE:?}" "${PEER_BASE:?}" "${DATA:?}"
: "${CACHED:?}" "${CACHECLI:?}"

if [[ ! $NODES =~ ^[1-9][0-9]{0,2}$ ]]; then
    echo "NODES=$NODES: a cluster has 1 node or more." >&2
    exit 2
fi

# Longest that anything here may take, in seconds: only what is broken does.
PATIENCE=${PATIENCE:-60}

# As many free ports in a row as are needed, somewhere below those that the
# system gives out by itself.
is_free() { ! (: <>"/dev/tcp/$HOST/$1") 2>/dev/null; }
find_ports() {
    local port try
    for try in $(seq 100); do
        PORT_BASE=$((10000 + RANDOM % 20000)) PEER_BASE=$((PORT_BASE + NODES))
        for port in $(seq "$PORT_BASE" $((PORT_BASE + 2 * NODES))); do
            is_free "$port" || continue 2
        done
        return
    done
    echo "No free ports were found on $HOST." >&2
    return 1
}

# Says which port somebody listens on already, if any.
check_ports() {
    local port
    for port in $(seq "$PORT_BASE" $((PORT_BASE + NODES - 1))) $(seq "$PEER_BASE" $((PEER_BASE + NODES - 1))); do
        is_free "$port" && continue
        echo "$HOST:$port is in use: is there a cluster already? PORT_BASE and PEER_BASE name other ports." >&2
        return 1
    done
}

client_address() { echo "$HOST:$((PORT_BASE + $1 - 1))"; }
peer_address() { echo "$HOST:$((PEER_BASE + $1 - 1))"; }

# The client addresses of all nodes, with commas; of all but one, if one is named.
all_addresses() {
    local number all=
    for number in $(seq "$NODES"); do
        if [[ $number != "${1:-}" ]]; then all+=",$(client_address "$number")"; fi
    done
    echo "${all#,}"
}

# Whether one of these nodes has been a member: it has a journal.
has_journal() {
    local number
    for number in "$@"; do compgen -G "$DATA/node$number/journal-*" >/dev/null && return; done
    return 1
}

# Whether a node begins the cluster.
founds() {
    (($1 == 1)) && { has_journal 1 || ! has_journal $(seq 2 "$NODES"); }
}

# Puts the flags of a node into the array `flags`.
flags_of() {
    local number=$1
    flags=(--id "node$number" --listen "$(client_address "$number")")
    flags+=(--peer-listen "$(peer_address "$number")" --data-dir "$DATA/node$number")
    if ! founds "$number"; then flags+=(--join "$(all_addresses "$number")"); fi
}

# pids[number] is the process of a node, as long as it is ours.
pids=()

# Starts a node; its log goes to where this function's output goes.
start_node() {
    local flags
    flags_of "$1"
    "$CACHED" "${flags[@]}" 2>&1 </dev/null &
    pids[$1]=$!
}

runs() { kill -0 "$1" 2>/dev/null; }

# Asks a node to end, and waits; it has to end well.
stop_node() {
    local pid=${pids[$1]}
    unset "pids[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid"
}

# For traps: ends whatever still runs.
stop_everything() {
    local pid
    for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null || true; done
    pids=()
}

cli() { "$CACHECLI" --addr "$(all_addresses)" "$@"; }

# The nodes with this role, one name per line.
nodes_with_role() { cli status --output raw 2>/dev/null | awk -F '\t' -v role="$1" '$4 == role { print $1 }'; }

# How many of the nodes lead or follow and have applied all that is committed.
nodes_ready() {
    cli status --output raw 2>/dev/null |
        awk -F '\t' '($4 == "leader" || $4 == "follower") && $11 == 0 { ready++ }
                     $4 == "leader" { leaders++ }
                     END { print leaders == 1 ? ready + 0 : 0 }'
}

all_ready() { [[ $(nodes_ready) == "$NODES" ]]; }
has_leader() { [[ -n $(nodes_with_role leader) ]]; }

# wait_for WHAT COMMAND…: until the command succeeds.
wait_for() {
    local what=$1 until=$((SECONDS + PATIENCE)) number
    shift
    until "$@"; do
        for number in "${!pids[@]}"; do
            runs "${pids[$number]}" && continue
            echo "node$number has ended; its log says why." >&2
            return 1
        done
        if ((SECONDS > until)); then
            echo "Waited $PATIENCE s for $what, in vain." >&2
            return 1
        fi
        sleep 0.1
    done
}
