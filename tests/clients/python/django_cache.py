"""Django: its cache, pages kept in it, and sessions kept in it."""

import django
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from django.views.decorators.cache import cache_page

LIBRARY = "Django"


def configure(host, port):
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"redis://{host}:{port}/5",
                "KEY_PREFIX": "site",
            }
        },
        DATABASES={},
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="not one",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    django.setup()
    urlpatterns.append(path("page", cache_page(60)(page)))


calls = []


def page(request):
    calls.append(request.path)
    return HttpResponse(f"call {len(calls)}")


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def leave(request):
    request.session.flush()
    return HttpResponse("left")


urlpatterns = [path("visits", visits), path("leave", leave)]


def check(host, port):
    configure(host, port)
    check_cache()
    check_page()
    check_sessions()


def check_cache():
    cache.clear()
    cache.set("user", {"name": "Åsa", "ids": [1, 2, 3]}, timeout=100)
    assert cache.get("user") == {"name": "Åsa", "ids": [1, 2, 3]}
    assert cache.get("missing") is None and cache.get("missing", "default") == "default"
    cache.set("none", None)
    assert cache.get("none", "default") is None
    assert cache.add("user", "other") is False and cache.add("new", "value") is True
    assert cache.get_or_set("lazy", lambda: 42) == 42 and cache.get_or_set("lazy", 43) == 42
    cache.set("number", 5)
    assert cache.incr("number") == 6 and cache.decr("number", 4) == 2
    try:
        cache.incr("missing")
    except ValueError:
        pass
    else:
        raise AssertionError("incremented what is missing")
    assert cache.set_many({"a": 1, "b": "two"}, timeout=100) == []
    assert cache.get_many(["a", "b", "missing"]) == {"a": 1, "b": "two"}
    cache.delete_many(["a", "b"])
    assert cache.get_many(["a", "b"]) == {}
    assert cache.touch("user", 200) is True and cache.touch("missing", 1) is False
    assert cache.has_key("user") and "missing" not in cache
    assert cache.delete("user") is True and cache.delete("user") is False
    cache.set("versioned", "old", version=1)
    assert cache.incr_version("versioned") == 2 and cache.get("versioned", version=2) == "old"
    cache.set("gone", "x", timeout=0)
    assert cache.get("gone") is None
    cache.clear()
    assert cache.get("number") is None


def check_page():
    first = Client().get("/page").content
    assert first == b"call 1" and Client().get("/page").content == first and calls == ["/page"]


def check_sessions():
    one, other = Client(), Client()
    assert [one.get("/visits").content for _ in range(3)] == [b"1", b"2", b"3"]
    assert other.get("/visits").content == b"1"
    assert one.get("/leave").content == b"left"
    assert one.get("/visits").content == b"1" and other.get("/visits").content == b"2"


def connect(host, port):
    configure(host, port)
    return cache.set, cache.get
