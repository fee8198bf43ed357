"""cachelib, which is below Flask-Session and others."""

from cachelib import RedisCache

LIBRARY = "cachelib"


def check(host, port):
    cache = RedisCache(host=host, port=port, db=9, default_timeout=100, key_prefix="lib:")
    cache.clear()
    assert cache.set("a", {"x": ["ö"]}) and cache.get("a") == {"x": ["ö"]}
    assert cache.get("missing") is None and cache.has("a") and not cache.has("missing")
    assert cache.add("new", 1) and not cache.add("new", 2) and cache.get("new") == 1
    assert cache.set_many({"b": 1, "c": 2}) and cache.get_many("b", "missing", "c") == [1, None, 2]
    assert cache.get_dict("b", "c") == {"b": 1, "c": 2}
    assert cache.inc("number", 5) == 5 and cache.dec("number") == 4
    assert cache.get("number") == 4
    assert cache.set("for ever", 1, timeout=0) and cache.get("for ever") == 1
    assert cache.delete("a") and not cache.delete("a")
    assert cache.delete_many("b", "c") and cache.get("b") is None
    assert cache.clear() and cache.get("number") is None


def connect(host, port):
    cache = RedisCache(host=host, port=port, db=9, key_prefix="lib:")

    def put(key, value):
        assert cache.set(key, value)

    return put, cache.get
