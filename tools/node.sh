#!/usr/bin/env bash
# One node of the cluster, in the foreground: node.sh NUMBER
set -euo pipefail
source "$(dirname "$0")/nodes.sh"

if [[ ! $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "node$1: nodes are called node1, node2 and so on." >&2
    exit 2
fi
if (($1 > NODES)); then
    echo "There is no node$1 in a cluster of $NODES; NODES=$1 makes it larger." >&2
    exit 1
fi
flags_of "$1"
echo "$CACHED ${flags[*]}"
exec "$CACHED" "${flags[@]}"
