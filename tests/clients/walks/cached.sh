#!/usr/bin/env bash
# CacheD: lines of text on three nodes; each knows what any of them was told.
source "$(dirname "$0")/walk.sh" CacheD 3001 4001

# say NODE LINE…: what nc prints. QUIT makes the node close, for not every nc does.
say() { printf '%s\n' "${@:2}" QUIT | timeout 60 nc "$HOST" "$((PORT_BASE + $1 - 1))"; }

follow_readme
# There a follower answers `not leader`.
for number in 1 2 3; do
    expect $'Success\nSuccess' say "$number" "SET n$number $number"
    expect "$number"$'\nSuccess' say "$((number % 3 + 1))" "GET n$number"
done
expect $'Success\n\nSuccess' say 3 'DEL color' 'GET color'
find_leader
murder "$leader"
eventually $'Success\nSuccess' say "$one" 'SET color red'
expect $'red\n1\nSuccess' say "$other" 'GET color' 'GET n1'
echo "nc on three nodes, one killed"
