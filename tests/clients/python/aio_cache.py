"""aiocache: values, and a decorator."""

import asyncio

from aiocache import Cache, cached
from aiocache.serializers import JsonSerializer, StringSerializer

LIBRARY = "aiocache"


def cache_at(host, port, serializer):
    return Cache(Cache.REDIS, endpoint=host, port=port, db=7, namespace="aio", serializer=serializer)


def check(host, port):
    asyncio.run(check_values(host, port))


async def check_values(host, port):
    async with cache_at(host, port, JsonSerializer()) as cache:
        await cache.clear(namespace="aio")
        assert await cache.set("a", {"b": [1, "ö"]}, ttl=100) is True
        assert await cache.get("a") == {"b": [1, "ö"]} and await cache.get("missing") is None
        try:
            await cache.add("a", 1)
        except ValueError:
            pass
        else:
            raise AssertionError("added what is there")
        assert await cache.add("new", 1) is True
        assert await cache.multi_set([("x", 1), ("y", 2)], ttl=100) is True
        assert await cache.multi_get(["x", "missing", "y"]) == [1, None, 2]
        assert await cache.exists("x") and not await cache.exists("missing")
        assert await cache.increment("number", 5) == 5 and await cache.increment("number", -2) == 3
        assert await cache.expire("number", 100) and not await cache.expire("missing", 1)
        assert await cache.raw("ttl", "aio:number") > 90
        assert await cache.delete("x") == 1 and await cache.delete("x") == 0
        await check_decorator(host, port)
        assert await cache.clear(namespace="aio") and await cache.get("a") is None


async def check_decorator(host, port):
    calls = []

    @cached(ttl=100, cache=Cache.REDIS, key_builder=lambda f, x: f"square {x}", endpoint=host, port=port,
            db=7, namespace="aio", serializer=JsonSerializer())
    async def square(x):
        calls.append(x)
        return x * x

    assert [await square(3), await square(3), await square(4)] == [9, 9, 16] and calls == [3, 4]
    await square.cache.close()


def connect(host, port):
    runner = asyncio.Runner() if hasattr(asyncio, "Runner") else None
    run = runner.run if runner else asyncio.new_event_loop().run_until_complete
    cache = cache_at(host, port, StringSerializer())

    async def put(key, value):
        assert await cache.set(key, value) is True

    return lambda key, value: run(put(key, value)), lambda key: run(cache.get(key))
