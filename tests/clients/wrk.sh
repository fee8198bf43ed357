#!/usr/bin/env bash
# wrk: HTTP over many connections that are kept, as fast as they are answered.
source "$(dirname "$0")/expect.sh"

# ask METHOD PATH BODY: many requests, and all are answered well.
ask() {
    local said
    said=$(timeout 60 wrk --threads 2 --connections 20 --duration 2s --timeout 10s \
        --script "$(dirname "$0")/wrk.lua" "http://$HOST:$PORT" -- "$@") || fail "failed: $*" "$said"
    [[ $said =~ requests=[1-9][0-9]*' 'status=0' 'connect=0' 'read=0' 'write=0' 'timeout=0' 'wrong=0 ]] ||
        fail "asked: $*" "$said"
}

get() {
    exec 3<>"/dev/tcp/$HOST/$PORT"
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
    timeout 60 tail -n 1 <&3
}

# All keys are there after that, each with its own value.
ask PUT '/v1/keys/wrk%2F%d?ttl=1h' 'value of %d'
ask GET '/v1/keys/wrk%2F%d' 'value of '
for number in 0 1 99; do expect "value of $number" get "/v1/keys/wrk%2F$number"; done
ask POST /key '{"wrk%d":"again"}'
ask GET '/key/wrk%d' '{"wrk'
expect '{"wrk50":"again"}' get /key/wrk50
# It ends with 1 after that.
{ wrk --version || true; } | sed -n 's/^\(wrk [^ ]*\).*/\1/p'
