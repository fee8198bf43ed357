#!/usr/bin/env bash
# raft-cache: its routes on three nodes, and again when one is killed.
source "$(dirname "$0")/walk.sh" raft-cache 8000 8081

# on NODE PATH CURL-FLAGS…: the body, and the status after it.
on() { timeout 60 curl -sS -w '|%{http_code}' "${@:3}" "http://$(client_address "$1")/api/v1/$2"; }

follow_readme
for number in 1 2 3; do expect $'blue\n|200' on "$number" key/color; done
expect '|200' on 2 key/color/red -XPOST
expect $'red\n|200' on 3 key/color
find_leader
murder "$leader"
eventually '|200' on "$one" key/color/green -XPOST
expect $'green\n|200' on "$other" key/color
expect '|200' on "$other" key/color -XDELETE
expect_like '{"message":*,"status":404}|404' on "$one" key/color
echo "its routes on three nodes, one killed"
