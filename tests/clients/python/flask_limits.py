"""Flask-Limiter: hits within fixed windows, which are counted by a script of limits."""

import redis
from flask import Flask
from flask_limiter import Limiter
from limits import RateLimitItemPerHour, parse
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

LIBRARY = "Flask-Limiter"
DATABASE = 8


def address(host, port):
    return f"redis://{host}:{port}/{DATABASE}"


def check(host, port):
    client = redis.Redis(host, port, db=DATABASE)
    client.flushdb()
    check_site(host, port)
    check_windows(host, port, client)


def check_site(host, port):
    app = Flask(__name__)
    visitors = iter("one other one one one other".split())
    limiter = Limiter(lambda: next(visitors), app=app, storage_uri=address(host, port),
                      strategy="fixed-window", headers_enabled=True)

    @app.route("/")
    @limiter.limit("3 per hour")
    def home():
        return "welcome"

    answers = [app.test_client().get("/") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429, 200], answers
    left = [answer.headers["X-RateLimit-Remaining"] for answer in answers]
    assert left == ["2", "2", "1", "0", "0", "1"], left


def check_windows(host, port, client):
    strategy = FixedWindowRateLimiter(storage_from_string(address(host, port)))
    item = parse("10 per hour")
    assert strategy.hit(item, "user", cost=4) and strategy.hit(item, "user", cost=6)
    assert strategy.test(item, "other") and not strategy.test(item, "user")
    assert not strategy.hit(item, "user")
    assert strategy.get_window_stats(item, "user").remaining == 0
    # The first hit has begun the window, and only it.
    (key,) = client.keys("*user*")
    assert 3500 < client.ttl(key) <= 3600
    client.expire(key, 1000)
    strategy.hit(item, "user")
    assert 900 < client.ttl(key) <= 1000
    strategy.clear(item, "user")
    assert client.keys("*user*") == [] and strategy.hit(item, "user")


def connect(host, port):
    """A hit in a window of its own for each write."""
    storage, values = storage_from_string(address(host, port)), {}
    strategy, item = FixedWindowRateLimiter(storage), RateLimitItemPerHour(1000)

    def put(key, value):
        assert strategy.hit(item, key)
        values[key] = value

    def get(key):
        return values[key] if storage.get(item.key_for(key)) >= 1 else None

    return put, get
