#!/usr/bin/env bash
# y3cache: make run, runfollower1, runfollower2, runset, runget; and its own bytes,
# again when a node is killed.
source "$(dirname "$0")/walk.sh" y3cache 3001 4001

# bytes_of NODE REQUEST: what is answered, in hexadecimal digits, until as many bytes
# are there as the third argument says.
bytes_of() {
    exec 3<>"/dev/tcp/$HOST/$((PORT_BASE + $1 - 1))"
    printf "$2" >&3
    timeout 60 head -c "$3" <&3 | od -An -tx1 | tr -d ' \n'
    exec 3>&-
}

follow_readme
# Foo = Bar for a thousand seconds; Foo; a key that is not there.
expect 01 bytes_of 1 '\x01\x03\0\0\0Foo\x03\0\0\0Bar\xe8\x03\0\0' 1
expect 01030000004261720300000000 bytes_of 2 '\x02\x03\0\0\0Foo\x02\x04\0\0\0None' 13
expect_like "9????? ms" cli --output raw ttl Foo
find_leader
murder "$leader"
eventually 01 bytes_of "$one" '\x01\x03\0\0\0Foo\x03\0\0\0Baz\0\0\0\0' 1
expect 010300000042617a bytes_of "$other" '\x02\x03\0\0\0Foo' 8
echo "make run, runset and runget, and its bytes, on three nodes, one killed"
