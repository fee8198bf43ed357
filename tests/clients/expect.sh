# To be sourced by clients that are scripts: what they expect, and HOST and PORT.
set -euo pipefail

HOST=$1 PORT=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/raftcache-client.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# expect OUTPUT COMMAND…: prints exactly this, and ends well.
expect() {
    local expected=$1 found
    shift
    found=$("$@") || fail "failed: $*" "$found"
    [[ $found == "$expected" ]] || fail "asked:    $*" "expected: $expected" "found:    $found"
}

# expect_like PATTERN COMMAND…: prints something that matches.
expect_like() {
    local pattern=$1 found
    shift
    found=$("$@") || fail "failed: $*" "$found"
    [[ $found == $pattern ]] || fail "asked:    $*" "expected: $pattern" "found:    $found"
}
