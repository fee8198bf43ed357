#!/usr/bin/env bash
# Cashe: a master and two that follow it.
source "$(dirname "$0")/walk.sh" Cashe 3000 4000

follow_readme
for number in 1 2 3; do
    expect OK "$CACHECLI" --addr "$(client_address "$number")" set "key$number" "value $number"
    next=$(client_address "$((number % 3 + 1))")
    expect "value $number" "$CACHECLI" --addr "$next" get "key$number"
done
find_leader
murder "$leader"
eventually OK "$CACHECLI" --addr "$(client_address "$one")" set color red
expect red "$CACHECLI" --addr "$(client_address "$other")" get color
echo "three nodes, each written to and read from, one killed"
