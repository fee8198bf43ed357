#!/usr/bin/env bash
# redis-cli --stat: a line about the node ten times a second, by INFO.
source "$(dirname "$0")/expect.sh"

# It goes on until nobody listens.
some_lines() { (timeout 20 redis-cli -h "$HOST" -p "$PORT" -i 0.1 --stat || true) | sed 4q; }
expect_like '*keys*mem*clients*requests*[0-9]*[0-9]*' some_lines
redis-cli --version
