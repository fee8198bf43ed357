"""dogpile.cache: a region, and functions whose results it keeps."""

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

LIBRARY = "dogpile.cache"


def region_at(host, port):
    arguments = {"host": host, "port": port, "db": 8, "redis_expiration_time": 200}
    return make_region().configure("dogpile.cache.redis", expiration_time=100, arguments=arguments)


def check(host, port):
    region = region_at(host, port)
    keys = ["a", "b", "c", "lazy"]
    region.delete_multi(keys)
    assert region.get("a") is NO_VALUE
    region.set("a", {"x": ["ö"]})
    assert region.get("a") == {"x": ["ö"]}
    region.set_multi({"b": 1, "c": 2})
    assert region.get_multi(["b", "missing", "c"]) == [1, NO_VALUE, 2]
    made = []

    def make():
        made.append(1)
        return "made"

    assert [region.get_or_create("lazy", make) for _ in range(3)] == ["made"] * 3 and made == [1]
    assert region.get_or_create_multi(["b", "d"], lambda *missing: [9 for _ in missing]) == [1, 9]
    region.delete_multi(["b", "c", "d"])
    assert region.get("b") is NO_VALUE and region.get("d") is NO_VALUE
    check_decorator(region)
    region.delete_multi(keys)
    assert region.get("a") is NO_VALUE


def check_decorator(region):
    calls = []

    @region.cache_on_arguments()
    def double(x):
        calls.append(x)
        return 2 * x

    double.invalidate(2)
    double.invalidate(3)
    assert [double(2), double(2), double(3)] == [4, 4, 6] and calls == [2, 3]
    double.invalidate(2)
    assert double(2) == 4 and calls == [2, 3, 2]
    assert double.refresh(3) == 6 and len(calls) == 4
    double.set("said", 3)
    assert double(3) == "said"


def connect(host, port):
    region = region_at(host, port)
    return region.set, region.get
