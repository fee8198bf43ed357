#!/usr/bin/env bash
# redis-cli: commands, both versions of the protocol, and what it does by itself.
source "$(dirname "$0")/expect.sh"

cli() { timeout 60 redis-cli -h "$HOST" -p "$PORT" "$@"; }
from() {
    local file=$1
    shift
    cli "$@" <"$file"
}

expect PONG cli PING
expect OK cli -n 3 FLUSHDB
expect OK cli -n 3 SET greeting "hello there"
expect "hello there" cli -n 3 GET greeting
expect "" cli GET greeting
expect '"hello there"' cli --no-raw -n 3 GET greeting
expect '(nil)' cli --no-raw -n 3 GET missing
expect '(integer) 1' cli --no-raw -n 3 EXISTS greeting
expect '"hello there",NULL' cli --csv -n 3 MGET greeting missing
expect '["hello there",null]' cli -3 --json -n 3 MGET greeting missing
expect $'1) "hello there"\n2) (nil)' cli -3 --no-raw -n 3 MGET greeting missing
expect $'1\n2\n3' cli -r 3 -n 3 INCR counter
expect OK cli -n 3 SET soon gone EX 100
expect '100' cli -n 3 TTL soon
expect '-1' cli -n 3 TTL counter
expect '-2' cli -n 3 TTL missing
expect string cli -n 3 TYPE greeting
expect_like 'ERR value is not an integer*' cli -n 3 INCR greeting
expect_like "ERR unknown command 'NONSENSE'*" cli NONSENSE
# Ends badly on an error if it is asked to.
if cli -e NONSENSE >/dev/null 2>&1; then fail "-e does not notice an error"; fi

# From standard input: the last argument; commands, a transaction among them.
head -c 100000 /dev/urandom >"$work/bytes"
expect OK from "$work/bytes" -x -n 3 SET bytes
cli -n 3 --raw GET bytes >"$work/found"
# It ends what it prints with a line break.
head -c 100000 "$work/found" | cmp - "$work/bytes"
printf '%s\n' 'SELECT 3' MULTI 'SET a 1' 'INCR a' EXEC >"$work/commands"
expect $'OK\nOK\nQUEUED\nQUEUED\nOK\n2' from "$work/commands"

# Many at once.
for number in $(seq 10000); do
    printf '*3\r\n$3\r\nSET\r\n$%d\r\npipe:%d\r\n$%d\r\n%d\r\n' $((${#number} + 5)) "$number" "${#number}" "$number"
done >"$work/sets"
expect_like '*errors: 0, replies: 10000' from "$work/sets" -n 3 --pipe
expect 10000 cli -n 3 GET pipe:10000
expect 10005 cli -n 3 DBSIZE

# Walks over all keys.
expect 10000 eval "cli -n 3 --scan --pattern 'pipe:*' | sort -u | wc -l"
expect greeting cli -n 3 --scan --pattern 'gre*'
expect_like '*Biggest string found*"bytes"* has 100000 bytes*' cli -n 3 --bigkeys
expect_like '*Biggest string found*"bytes"*' cli -n 3 --memkeys

# Without a terminal it measures for a second.
expect_like '[0-9]*' timeout 20 redis-cli -h "$HOST" -p "$PORT" --latency
expect OK cli -n 3 FLUSHDB
expect 0 cli -n 3 DBSIZE
redis-cli --version
