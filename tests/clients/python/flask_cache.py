"""Flask-Caching: views, functions, and values by hand."""

from flask import Flask
from flask_caching import Cache

LIBRARY = "Flask-Caching"


def application(host, port):
    app = Flask(__name__)
    settings = {"CACHE_TYPE": "RedisCache", "CACHE_DEFAULT_TIMEOUT": 100, "CACHE_KEY_PREFIX": "flask:"}
    cache = Cache(app, config=settings | {"CACHE_REDIS_HOST": host, "CACHE_REDIS_PORT": port, "CACHE_REDIS_DB": 6})
    return app, cache


def check(host, port):
    app, cache = application(host, port)
    with app.app_context():
        cache.clear()
        check_values(cache)
    check_views(app, cache)
    with app.app_context():
        check_functions(cache)
        assert cache.clear()
        assert cache.get("text") is None


def check_values(cache):
    assert cache.set("text", {"a": "ö"}) and cache.get("text") == {"a": "ö"}
    assert cache.get("missing") is None and cache.has("text") and not cache.has("missing")
    assert not cache.add("text", 1) and cache.add("new", 1)
    assert cache.set_many({"a": 1, "b": [2]}) and cache.get_many("a", "b", "missing") == [1, [2], None]
    assert cache.get_dict("a", "missing") == {"a": 1, "missing": None}
    assert cache.delete_many("a", "b") and cache.get("a") is None
    assert cache.delete("new") and not cache.delete("new")
    assert cache.set("for ever", 1, timeout=0) and cache.get("for ever") == 1


def check_views(app, cache):
    calls = []

    @app.route("/view")
    @cache.cached(timeout=50, query_string=True)
    def view():
        calls.append(1)
        return f"call {len(calls)}"

    client = app.test_client()
    assert [client.get("/view?a=1").text for _ in range(3)] == ["call 1"] * 3
    assert client.get("/view?a=2").text == "call 2" and client.get("/view?a=1").text == "call 1"


def check_functions(cache):
    calls = []

    @cache.memoize(50)
    def add(a, b):
        calls.append((a, b))
        return a + b

    assert [add(1, 2), add(1, 2), add(2, 2)] == [3, 3, 4] and calls == [(1, 2), (2, 2)]
    cache.delete_memoized(add, 1, 2)
    assert add(1, 2) == 3 and add(2, 2) == 4 and len(calls) == 3
    cache.delete_memoized(add)
    assert add(2, 2) == 4 and len(calls) == 4


def connect(host, port):
    app, cache = application(host, port)
    app.app_context().push()

    def put(key, value):
        assert cache.set(key, value)

    return put, cache.get
