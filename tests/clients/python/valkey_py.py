"""valkey-py, with both versions of the protocol."""

import valkey
import valkey.asyncio

import of_redis

LIBRARY = "valkey"


def check(host, port):
    for protocol in (2, 3):
        of_redis.check(valkey, valkey.Valkey, valkey.asyncio.Valkey, host=host, port=port, protocol=protocol)


def connect(host, port):
    return of_redis.connect(valkey.Valkey(host, port, db=1, decode_responses=True))
