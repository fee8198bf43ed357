"""redis-py, with both versions of the protocol."""

import redis
import redis.asyncio

import of_redis

LIBRARY = "redis"


def check(host, port):
    for protocol in (2, 3):
        of_redis.check(redis, redis.Redis, redis.asyncio.Redis, host=host, port=port, protocol=protocol)


def connect(host, port):
    return of_redis.connect(redis.Redis(host, port, db=1, decode_responses=True))
