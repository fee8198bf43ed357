#!/usr/bin/env bash
# curl: every route of HTTP, and what curl does by itself for large bodies and for
# several requests.
source "$(dirname "$0")/expect.sh"

base=http://$HOST:$PORT
ask() { timeout 60 curl -sS "$@"; }
# The body, and the status after it.
answer() {
    local path=$1
    shift
    ask -w '|%{http_code}' "$base$path" "$@"
}
head_of() { ask -D - -o /dev/null "$@" | tr -d '\r'; }
header() {
    local name=$1
    shift
    head_of "$@" | sed -n "s/^$name: //p"
}

expect 'OK|200' answer /health
expect 'OK|200' answer /ready
expect_like 'raftcache*|200' answer /
expect_like '{*"followers":*"health":"ok"*"leader":*"me":*"term":*}|200' answer /status
expect_like '{*"status":404}|404' answer /nowhere
expect_like '{*"status":405}|405' answer /status -X DELETE
expect 'GET, HEAD' header Allow -X DELETE "$base/status"

# Values as they are.
keys=/v1/keys/curl%2Fkey
answer "$keys" -X DELETE >"$work/deleted"
expect_like '{*"status":404}|404' answer "$keys"
expect_like '{*"status":404}|404' answer "$keys" -X DELETE
expect_like '*|412' answer "$keys?xx" -X PUT -d none
expect '|204' answer "$keys?nx" -X PUT -d one
expect_like '*|412' answer "$keys?nx" -X PUT -d two
expect_like '*|412' answer "$keys" -X PUT -d two -H 'If-None-Match: *'
expect 'one|200' answer "$keys"
expect 'one|200' answer "$keys?consistency=linearizable"
expect_like '*|[24]0[04]' answer "$keys?consistency=stale"
expect '{"curl/key":"one"}|200' answer /key/curl%2Fkey
version=$(header ETag "$base$keys")
expect_like '*|409' answer "$keys" -X PUT -d three -H 'If-Match: "1"'
expect '|204' answer "$keys" -X PUT -d three -H "If-Match: $version"
expect_like '*|409' answer "$keys" -X DELETE -H "If-Match: $version"
expect_like 'HTTP/1.1 200 OK*Content-Length: 5*' ask --head "$base$keys"
expect_like 'HTTP/1.1 404 *' ask --head "$base/v1/keys/missing"
expect '|204' answer "$keys?ttl=1h" -X PUT -d four
expect '|204' answer "$keys" -X DELETE
expect '|204' answer "$keys?ttl=1ms" -X PUT -d five
until [[ $(answer "$keys") == *'|404' ]]; do sleep 0.1; done

# hraftd's.
expect 'OK|200' answer /key -d '{"user1":"batman","user2":"robin"}'
expect '{"user1":"batman"}|200' answer /key/user1
expect '{"user2":"robin"}|200' answer /key/user2
expect '|200' answer /key/user1 -X DELETE
expect '{"user1":""}|404' answer /key/user1
expect_like '{*"status":400}|400' answer /key -d '{"user1":1}'
expect_like '{*"status":400}|400' answer /key -d 'user1=batman'

# raft-cache's.
expect '|200' answer /api/v1/key/color/value/blue -X POST
expect $'blue\n|200' answer /api/v1/key/color
expect '|200' answer /api/v1/key/color/deep%20red -X POST
expect $'deep red\n|200' answer /api/v1/key/color
expect '|200' answer /api/v1/key/color -X DELETE
expect_like '{"message":*,"status":404}|404' answer /api/v1/key/color

# Members: who joins again is what it was; who is unknown cannot leave.
me=$(ask "$base/status" | grep -o '"me":{[^}]*}')
[[ $me =~ \"address\":\"([^\"]*)\" ]] || fail "no address: $me"
address=${BASH_REMATCH[1]}
[[ $me =~ \"id\":\"([^\"]*)\" ]] || fail "no id: $me"
id=${BASH_REMATCH[1]}
expect '|200' answer /join -d "{\"addr\":\"$address\",\"id\":\"$id\"}"
expect '|200' answer /api/v1/node -d "{\"addr\":\"$address\",\"node_id\":\"$id\"}"
expect_like '{*"status":400}|400' answer /join -d '{}'
expect_like '{*"status":409}|409' answer /join -d '{"addr":"127.0.0.1:1","id":"nobody"}'
expect_like '{*"status":409}|409' answer /leave -d '{"id":"nobody"}'
expect_like '{*"status":409}|409' answer /leave -d '{"addr":"127.0.0.1:1"}'
expect_like '{*"status":409}|409' answer /api/v1/node/nobody -X DELETE

# Before it sends so much, curl asks whether it may.
head -c 1048576 /dev/urandom >"$work/large"
ask -v -T "$work/large" -H 'Expect: 100-continue' "$base/v1/keys/large" 2>"$work/said"
grep -q '^< HTTP/1.1 100 Continue' "$work/said" || fail "no 100 Continue" "$(cat "$work/said")"
ask -o "$work/found" "$base/v1/keys/large"
cmp "$work/large" "$work/found"
expect_like '*|406' answer /key/large
expect '|204' answer /v1/keys/large -T - -H 'Transfer-Encoding: chunked' <"$work/said"
ask -o "$work/found" "$base/v1/keys/large"
cmp "$work/said" "$work/found"
head -c $((17 << 20)) /dev/zero >"$work/huge"
expect_like '{*"status":413}|413' answer /v1/keys/large -T "$work/huge"

# One connection for two requests; none is kept for HTTP/1.0 or if it is to end.
expect '10' ask -o /dev/null -o /dev/null -w '%{num_connects}' "$base/health" "$base/status"
expect '11' ask -0 -o /dev/null -o /dev/null -w '%{num_connects}' "$base/health" "$base/status"
expect close header Connection -H 'Connection: close' "$base/health"
curl --version | sed -n 's/^\(curl [^ ]*\).*/\1/p'
