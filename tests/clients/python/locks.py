"""Locks, which are let go by a script: redis-py's, dogpile.cache's, aiocache's."""

import asyncio

import redis
from aiocache import Cache
from aiocache.lock import RedLock
from dogpile.cache import make_region

LIBRARY = "redis"


def check(host, port):
    client = redis.Redis(host, port, db=10)
    client.flushdb()
    check_redis_py(client)
    check_dogpile(host, port)
    asyncio.run(check_aiocache(host, port))
    # Every lock was let go.
    assert client.keys("*lock*") == []


def check_redis_py(client):
    one, other = (client.lock("lock", timeout=100, blocking=False) for _ in range(2))
    assert one.acquire() and not other.acquire() and one.locked() and one.owned() and not other.owned()
    assert one.extend(100, replace_ttl=True) and one.reacquire()
    # By so much more than is left, or less.
    assert one.extend(900) and 900 < client.ttl("lock") <= 1000
    assert one.extend(-800) and 100 < client.ttl("lock") <= 200
    one.release()
    assert other.acquire()
    client.delete("lock")
    try:
        other.release()
    except redis.exceptions.LockNotOwnedError:
        pass
    else:
        raise AssertionError("let go of what it has lost")
    with client.lock("lock", timeout=100, blocking_timeout=10):
        assert client.ttl("lock") > 90
    assert client.get("lock") is None


def check_dogpile(host, port):
    arguments = {"host": host, "port": port, "db": 10, "distributed_lock": True, "lock_timeout": 100,
                 "thread_local_lock": False}
    region = make_region().configure("dogpile.cache.redis", expiration_time=100, arguments=arguments)
    assert [region.get_or_create("made", lambda: "value") for _ in range(2)] == ["value"] * 2


async def check_aiocache(host, port):
    async with Cache(Cache.REDIS, endpoint=host, port=port, db=10) as cache:
        async with RedLock(cache, "made", 100):
            assert await cache.exists("made-lock")
        assert not await cache.exists("made-lock")


def connect(host, port):
    """A lock is taken for each write."""
    client = redis.Redis(host, port, db=10, decode_responses=True)

    def put(key, value):
        with client.lock("failover-lock", timeout=1, blocking_timeout=5):
            assert client.set(key, value) is True

    return put, client.get
