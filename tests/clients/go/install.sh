#!/usr/bin/env bash
# install.sh ENVIRONMENT: builds the client there, with the redigo that Debian
# installed; Go knows what has changed.
set -euo pipefail

export GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local
mkdir -p "$1"
version=$(dpkg-query -W -f '${Version}' golang-github-gomodule-redigo-dev)
GOCACHE=$(realpath "$1")/cache go build -ldflags "-X main.version=$version" -o "$1/redigo" "$(dirname "$0")/redigo.go"
echo "$1"
