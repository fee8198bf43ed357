"""django-redis: Django's cache with time left, locks, patterns and raw numbers."""

import django
from django.conf import settings
from django.core.cache import cache
from django_redis import get_redis_connection

LIBRARY = "django-redis"


def configure(host, port):
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://{host}:{port}/7",
                "KEY_PREFIX": "site",
            }
        },
        DATABASES={},
        SECRET_KEY="not one",
    )
    django.setup()


def check(host, port):
    configure(host, port)
    cache.clear()
    check_values()
    check_numbers()
    check_time_left()
    check_names()
    check_lock()


def check_values():
    assert cache.set("user", {"name": "Åsa", "ids": [1, 2, 3]}, timeout=100) is True
    assert cache.get("user") == {"name": "Åsa", "ids": [1, 2, 3]}
    assert cache.get("missing") is None and cache.get("missing", "default") == "default"
    assert cache.add("user", "other") is False and cache.add("new", "value") is True
    assert not cache.set("user", "other", nx=True) and not cache.set("absent", "x", xx=True)
    assert cache.get_or_set("lazy", lambda: 42) == 42 and cache.get_or_set("lazy", 43) == 42
    cache.set_many({"a": 1, "b": "two"}, timeout=100)
    assert cache.get_many(["a", "b", "missing"]) == {"a": 1, "b": "two"}
    assert cache.delete_many(["a", "b"]) == 2 and cache.get_many(["a", "b"]) == {}
    assert cache.has_key("user") and "missing" not in cache
    assert cache.delete("user") and not cache.delete("user")
    cache.set("versioned", "old", version=1)
    assert cache.incr_version("versioned") == 2 and cache.get("versioned", version=2) == "old"


def check_numbers():
    """A script that looks first; what is too large for a number is stored as an object."""
    cache.set("number", 5, timeout=100)
    assert cache.incr("number") == 6 and cache.decr("number", 4) == 2 and cache.ttl("number") > 90
    assert cache.incr("number", ignore_key_check=True) == 3
    assert cache.incr("fresh", 7, ignore_key_check=True) == 7
    for change in cache.incr, cache.decr:
        try:
            change("missing")
        except ValueError:
            pass
        else:
            raise AssertionError("changed what is missing")
    assert cache.get("missing") is None
    cache.set("large", 2**63 - 1, timeout=100)
    assert cache.incr("large") == 2**63 and cache.incr("large") == 2**63 + 1
    assert cache.ttl("large") > 80


def check_time_left():
    cache.set("soon", "x", timeout=100)
    assert 90 < cache.ttl("soon") <= 100 and 90_000 < cache.pttl("soon") <= 100_000
    assert cache.touch("soon", 200) and 190 < cache.ttl("soon") <= 200
    assert cache.expire("soon", 300) and 290 < cache.ttl("soon") <= 300
    assert cache.pexpire("soon", 400_000) and 390 < cache.ttl("soon") <= 400
    assert cache.persist("soon") and cache.ttl("soon") is None and cache.ttl("missing") == 0
    cache.set("gone", "x", timeout=0)
    assert cache.get("gone") is None
    cache.set("forever", "x", timeout=None)
    assert cache.ttl("forever") is None


def check_names():
    cache.set_many({f"page:{n}": n for n in range(50)})
    assert sorted(cache.keys("page:1?")) == [f"page:1{n}" for n in range(10)]
    assert len(list(cache.iter_keys("page:*", itersize=7))) == 50
    assert cache.delete_pattern("page:*", itersize=7) == 50 and cache.keys("page:*") == []


def check_lock():
    one, other = (cache.lock("lock", timeout=100, blocking=False) for _ in range(2))
    assert one.acquire() and not other.acquire()
    assert one.extend(100)
    one.release()
    with cache.lock("lock", timeout=100):
        assert not other.acquire()
    assert other.acquire()
    other.release()
    assert get_redis_connection("default").keys("*lock*") == []


def connect(host, port):
    configure(host, port)
    return cache.set, cache.get
