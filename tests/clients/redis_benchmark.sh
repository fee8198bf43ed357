#!/usr/bin/env bash
# redis-benchmark: many connections, deep pipelines; it ends at the first error.
source "$(dirname "$0")/expect.sh"

tests=(PING_INLINE PING_MBULK SET GET INCR "MSET (10 keys)")

# Every test has to have its line. Where nothing listens it would complain for ever.
measure() {
    local found test
    found=$(timeout 60 redis-benchmark -h "$HOST" -p "$PORT" -t ping,set,get,incr,mset -q -n 1000 -c 10 -r 1000 "$@" 2>&1 |
        head -c 100000 | tr '\r' '\n') || fail "failed with $*:" "$found"
    for test in "${tests[@]}"; do
        grep -q "^$test: .* requests per second, p50=" <<<"$found" || fail "no $test with $*:" "$found"
    done
    ! grep -qi error <<<"$found" || fail "an error with $*:" "$found"
}

measure -P 1
measure -P 16
measure -P 16 -d 10000 --dbnum 5
help=$(redis-benchmark --help)
if [[ $help == *' -3 '* ]]; then measure -P 16 -3; fi
redis-benchmark --version
