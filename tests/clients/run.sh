#!/usr/bin/env bash
# Software that others wrote, unmodified, against a cluster of three nodes: each
# client through a node that follows and through the one that leads.
#
#   run.sh [CLIENT…]   those only; all of them if none is named
#
# Says `ok`, `FAILED` or `skipped` for each, and fails if any failed. ENVIRONMENTS
# is where libraries are installed, of the versions in the lock files beside the
# clients. A client is a program that takes a host and a port, and ends well if
# all was as it expects; the last line it prints says which version it is.
set -euo pipefail

wanted=("$@")
# Longest that a client may take for one job, in seconds: only what is broken does.
LIMIT_SECONDS=${LIMIT_SECONDS:-180}
NODES=3
work=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-clients.XXXXXX")
DATA=$work
here=$(dirname "$0")
source "$here/../../tools/nodes.sh"
: "${ENVIRONMENTS:?}"
# Python leaves nothing in the tree.
export PYTHONDONTWRITEBYTECODE=1

running=
finish() {
    local code=$?
    trap - EXIT
    if [[ -n $running ]]; then kill -TERM "$running" 2>/dev/null || true; fi
    stop_everything
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

declare -A count=([ok]=0 [FAILED]=0 [skipped]=0)
# Names that are known.
known=" "
# A node, by number.
chosen=

say() {
    printf '%-8s %-16s %-9s %s\n' "$@"
    count[$1]=$((count[$1] + 1))
}

start() { start_node "$1" >>"$work/node$1.log"; }
port_of() { echo $((PORT_BASE + $1 - 1)); }
# Puts the number of a node with this role into `chosen`.
find_a() {
    chosen=$(nodes_with_role "$1" | sed -n '1s/^node//p')
    [[ -n $chosen ]]
}

# wait_for_nodes ROLE: until all are well, and `chosen` has that role. Without all
# of them there is nothing to be tested any more.
wait_for_nodes() {
    wait_for "a leader and all members" all_ready && wait_for "a $1" find_a "$1" && return
    tail -n 30 "$work"/node*.log >&2
    exit 1
}

# Whether the nodes know a command of Redis.
offers() {
    local reply
    exec 3<>"/dev/tcp/$HOST/$PORT_BASE"
    printf '*3\r\n$7\r\nCOMMAND\r\n$4\r\nINFO\r\n$%d\r\n%s\r\n' "${#1}" "$1" >&3
    read -r -t 10 reply <&3 && read -r -t 10 reply <&3
    exec 3>&-
    [[ $reply != ?-1* ]]
}

# What of these is not here: programs, commands of the nodes (command:info), a Python
# that is new enough and can make environments (python), a new enough Node (node),
# libraries that the system installs (phpredis, redis-rb, redigo).
missing() {
    local need
    for need in "$@"; do
        case $need in
            command:*) offers "${need#*:}" || { echo "the nodes do not know ${need#*:} yet"; return; } ;;
            python)
                python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
                    { echo "no Python 3.10 with venv is here"; return; }
                ;;
            node)
                node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null ||
                    { echo "no Node 20 is here"; return; }
                ;;
            phpredis)
                php -r 'exit(extension_loaded("redis") ? 0 : 1);' 2>/dev/null || { echo "no PHP with phpredis is here"; return; }
                ;;
            redis-rb) ruby -e 'require "redis"' 2>/dev/null || { echo "no Ruby with redis-rb is here"; return; } ;;
            redigo)
                [[ -d /usr/share/gocode/src/github.com/gomodule/redigo ]] || { echo "no redigo of Debian is here"; return; }
                ;;
            *) [[ -n $(type -P "$need") ]] || { echo "no $need is here"; return; } ;;
        esac
    done
}

# begins NAME NEEDS: whether a client is to be run, and can be.
begins() {
    local why
    known+="$1 "
    if ((${#wanted[@]} > 0)) && [[ " ${wanted[*]} " != *" $1 "* ]]; then return 1; fi
    why=$(missing $2)
    [[ -z $why ]] && return
    say skipped "$1" - "$why"
    return 1
}

# attempt NAME PART COMMAND…: runs it, and says how that went.
attempt() {
    local name=$1 part=$2 log=$work/$1-$2.log code=0
    shift 2
    timeout -k 5 "$LIMIT_SECONDS" "$@" >"$log" 2>&1 </dev/null &
    running=$!
    wait "$running" 2>/dev/null || code=$?
    running=
    if ((code == 0)); then
        say ok "$name" "$part" "$(tail -n 1 "$log")"
        return
    fi
    if ((code == 124)); then echo "It took too long, or a part of it did." >>"$log"; fi
    say FAILED "$name" "$part" "with exit code $code:"
    tail -n 30 "$log" | sed 's/^/    | /'
    return 1
}

# on_both NAME COMMAND…: through a node that follows, and through the one that leads.
on_both() {
    local name=$1 role
    shift
    for role in follower leader; do
        wait_for_nodes "$role"
        attempt "$name" "$role" "$@" "$HOST" "$(port_of "$chosen")" || true
    done
}

# failover NAME COMMAND…: the command kills the leader while it writes through
# another node; the leader's process follows the host and the port.
failover() {
    local name=$1 leader pid
    shift
    wait_for_nodes leader
    leader=$chosen pid=${pids[$chosen]}
    wait_for_nodes follower
    attempt "$name" failover "$@" "$HOST" "$(port_of "$chosen")" "$pid" || true
    unset "pids[$leader]"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    start "$leader"
}

# program NAME NEEDS COMMAND…
program() {
    local name=$1 needs=$2
    shift 2
    if begins "$name" "$needs"; then on_both "$name" "$@"; fi
}

# every_way NAME COMMAND…: it checks on both, then it fails over.
every_way() {
    on_both "$@" check
    failover "$@" failover
}

# library NAME NEEDS COMMAND…: one that needs nothing to be installed or built.
library() {
    local name=$1 needs=$2
    shift 2
    if begins "$name" "$needs"; then every_way "$name" "$@"; fi
}

# walk NAME NEEDS: a walk of somebody else's, with nodes of its own.
walk() {
    if begins "${1}_walk" "$2"; then attempt "${1}_walk" walk bash "$here/walks/$1.sh" || true; fi
}

# python_library NAME NEEDS ENVIRONMENT MODULE
python_library() {
    local name=$1 environment=$ENVIRONMENTS/python-$3 lock=$here/python/requirements-$3.txt
    local run=("$environment/bin/python" "$here/python/main.py" "$4")
    begins "$name" "python $2" || return 0
    if ! cmp -s "$lock" "$environment/installed"; then
        attempt "$name" install bash "$here/python/install.sh" "$environment" "$lock" || return 0
    fi
    every_way "$name" "${run[@]}"
}

# node_library NAME NEEDS MODULE
node_library() {
    local name=$1 environment=$ENVIRONMENTS/node lock=$here/node/package-lock.json
    local run=(node "$environment/main.mjs" "$3")
    begins "$name" "node npm $2" || return 0
    if ! cmp -s "$lock" "$environment/installed"; then
        attempt "$name" install bash "$here/node/install.sh" "$environment" || return 0
    fi
    # Node looks for libraries beside the program.
    cp "$here"/node/*.mjs "$environment"
    every_way "$name" "${run[@]}"
}

# rust_library NAME NEEDS MODULE
rust_library() {
    local name=$1 environment=$ENVIRONMENTS/rust
    begins "$name" "cargo $2" || return 0
    # Cold, on a machine that has other things to do.
    LIMIT_SECONDS=900 attempt "$name" build bash "$here/rust/install.sh" "$environment" || return 0
    every_way "$name" env RUST_BACKTRACE=0 "$environment/debug/clients" "$3"
}

# go_library NAME NEEDS
go_library() {
    local name=$1 environment=$ENVIRONMENTS/go
    begins "$name" "go $2" || return 0
    attempt "$name" build bash "$here/go/install.sh" "$environment" || return 0
    every_way "$name" "$environment/$name"
}

find_ports
for number in $(seq "$NODES"); do start "$number"; done
wait_for_nodes leader

program redis_cli       "redis-cli"              bash "$here/redis_cli.sh"
program redis_cli_pty   "redis-cli python3"      python3 "$here/redis_cli_pty.py"
program redis_cli_stat  "redis-cli command:info" bash "$here/redis_cli_stat.sh"
program redis_benchmark "redis-benchmark"        bash "$here/redis_benchmark.sh"
program curl            "curl"                   bash "$here/curl.sh"
program nc              ""                       bash "$here/nc.sh"
program wrk             "wrk"                    bash "$here/wrk.sh"

python_library redis_py_7    ""                redis-7    redis_py
python_library redis_py_8    ""                redis-8    redis_py
python_library valkey_py     ""                valkey     valkey_py
python_library django        ""                frameworks django_cache
python_library flask_caching ""                frameworks flask_cache
python_library aiocache      ""                frameworks aio_cache
python_library dogpile       ""                frameworks dogpile_region
python_library cachelib      ""                frameworks cache_lib
python_library locks         "command:evalsha" frameworks locks
python_library django_redis  "command:evalsha" frameworks django_redis_cache
python_library flask_limiter "command:evalsha" frameworks flask_limits

node_library node_redis    ""             node_redis
node_library ioredis       "command:info" io_redis
node_library cache_manager ""             cache_manager
node_library connect_redis ""             connect_redis
node_library rate_limit_redis "command:evalsha" rate_limit_redis
node_library rate_limiter     "command:evalsha" rate_limiter_flexible

rust_library redis_rs "" redis
rust_library fred     "" fred

go_library redigo "redigo"

library phpredis     "phpredis"                 php "$here/php/main.php" phpredis
library php_sessions "phpredis command:evalsha" php "$here/php/main.php" sessions
library redis_rb     "redis-rb"                 ruby "$here/ruby/redis_rb.rb"

export CACHED CACHECLI
walk hraftd     "curl redis-cli redis-benchmark"
walk raft_cache "curl"
walk cached     "nc"
walk y3cache    "make"
walk cashe      ""

for name in ${wanted[@]+"${wanted[@]}"}; do
    [[ $known == *" $name "* ]] && continue
    echo "There is no client $name; there are$known" >&2
    exit 2
done
wait_for_nodes leader
for number in "${!pids[@]}"; do stop_node "$number"; done
echo "${count[ok]} ok, ${count[FAILED]} failed, ${count[skipped]} skipped."
((count[FAILED] == 0))
