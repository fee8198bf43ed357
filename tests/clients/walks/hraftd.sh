#!/usr/bin/env bash
# hraftd: curl on three nodes, the leader killed and started again; then, as its fork
# has it, Redis' own tools on the same port.
source "$(dirname "$0")/walk.sh" hraftd 11000 12000

ask() { timeout 60 curl -sS "$@"; }
key_of() { ask "http://$(client_address "$1")/key/$2"; }

follow_readme
for number in 1 2 3; do expect '{"user1":"batman"}' key_of "$number" user1; done
find_leader
murder "$leader"
eventually OK ask -XPOST "$(client_address "$one")/key" -d '{"user3": "joker"}'
for number in "$one" "$other"; do
    for user in '"user1":"batman"' '"user2":"robin"' '"user3":"joker"'; do
        expect "{$user}" key_of "$number" "$(cut -d '"' -f 2 <<<"$user")"
    done
done
begin "$leader"
ready
expect '{"user3":"joker"}' key_of "$leader" user3
expect '' ask -XDELETE "$(client_address "$leader")/key/user3"
expect '{"user3":""}' key_of "$other" user3

# The fork: GET, SET, DEL, LEADER, and redis-benchmark with ever more clients.
redis() { timeout 60 redis-cli -h "$HOST" -p "$((PORT_BASE + $1 - 1))" "${@:2}"; }
expect OK redis 1 SET k v
expect v redis 2 GET k
expect 1 redis 3 DEL k
find_leader
expect_like "*:$((PORT_BASE + leader - 1))" redis "$one" LEADER
for clients in 1 20 50 100; do
    found=$(timeout 60 redis-benchmark -h "$HOST" -p "$((PORT_BASE + one - 1))" -t set,get -q -n 2000 -c "$clients" 2>&1 |
        head -c 100000 | tr '\r' '\n') || fail "failed with $clients clients:" "$found"
    (($(grep -c 'requests per second, p50=' <<<"$found") == 2)) || fail "with $clients clients:" "$found"
done
echo "curl, redis-cli and redis-benchmark on three nodes, one killed"
