#!/usr/bin/env bash
# nc: the text protocol, a line for a line.
source "$(dirname "$0")/expect.sh"

# Where there is no nc, bash does the same.
if type -P nc >/dev/null; then
    talker=nc
    talk() { timeout 60 nc "$HOST" "$PORT"; }
else
    talker="bash, for no nc is here"
    talk() {
        exec 3<>"/dev/tcp/$HOST/$PORT"
        cat >&3
        timeout 60 cat <&3
    }
fi
# The node's name and its address for peers.
me=$(printf 'GET /status HTTP/1.0\r\n\r\n' | talk | grep -o '"me":{[^}]*}')
[[ $me =~ \"address\":\"([^\"]*)\" ]] || fail "no address: $me"
address=${BASH_REMATCH[1]}
[[ $me =~ \"id\":\"([^\"]*)\" ]] || fail "no id: $me"
id=${BASH_REMATCH[1]}

# QUIT makes the node close, for not every nc does at the end of its input.
say() { printf '%s\n' "$@" QUIT | talk; }

expect $'Success\nSuccess' say 'DEL nc'
expect $'\nSuccess' say 'GET nc'
expect $'Success\nsome words\nSuccess' say 'SET nc some words' 'GET nc'
expect $'Success\nline\nSuccess' say $'SET nc line\r' $'GET nc\r'
expect $'Success\n\nSuccess' say 'DEL nc' 'GET nc'
expect $'SET message must have key and value\nSuccess' say 'SET nc'
expect $'JOIN message must have nodeID and remoteAddr\nSuccess' say 'JOIN node9'
expect $'Invalid command in message\nSuccess' say 'NONSENSE nc'
expect $'message must atleast have command, key or nodeID and remoteAddr\nSuccess' say GET
expect $'+PONG\r\nSuccess' say PING
# Who joins again is what it was.
expect $'Success\nSuccess' say "JOIN $id $address"
expect_like $'ERR *\nSuccess' say 'JOIN nobody 127.0.0.1:1'
echo "$talker"
