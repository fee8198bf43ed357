"""Tests of the Python client: the golden bytes, failing over, and a node if there is one.

    python3 selftest.py                      # needs nothing
    python3 selftest.py --live HOST:PORT     # and then a running node, which it writes to

Every line of binary_golden.txt is looked up here by what it says, and every entry
here has to be in the file, so neither can change without the other.
"""

import socket
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
import raftcache as rc  # noqa: E402
from raftcache import Client, Item, Key, Member, OutcomeUnknown, Refused, SetResult, Unreachable

GOLDEN = Path(__file__).resolve().parents[3] / "src" / "protocol" / "binary_golden.txt"

a_and_b = rc.mset({"a": "1", "b": "2"})
everything = [
    rc.get("a"), rc.exists("a"), rc.ttl("a"), rc.count(), rc.set("a", "1"), rc.delete("a"),
    rc.expire("a", 1), rc.persist("a"), rc.incr("a"), rc.clear(None),
]  # fmt: skip
guarded = rc.batch([rc.set("a", "1"), rc.get("b")], [("a", 9), (Key("b", 1), 0)])

REQUESTS = {
    "classic-set | SET K_0=V_0, no ttl": rc.classic_set("K_0", "V_0"),
    "classic-set | SET Foo=Bar for 2 seconds": rc.classic_set("Foo", "Bar", 2),
    "classic-set | SET of an empty key to an empty value": rc.classic_set("", ""),
    "classic-get | GET K_0": rc.classic_get("K_0"),
    "classic-join | JOIN node2 at 127.0.0.1:1112": rc.classic_join("node2", "127.0.0.1:1112"),
    "ping | PING": rc.ping(),
    "get | GET K_0, linearizable": rc.get("K_0"),
    "get | GET K_0 of database 15, stale": rc.get(Key("K_0", 15), stale=True),
    "set | SET K_0=V_0": rc.set("K_0", "V_0"),
    "set | SET K_0 to nothing, keeping its deadline, if absent": rc.set("K_0", "", keep_ttl=True, nx=True),
    "set | SET K_0=V for 1500 ms, if present": rc.set("K_0", "V", ttl_ms=1500, xx=True),
    "set | SET K_0=V until 2^40 ms since 1970, if it holds U": rc.set("K_0", "V", at_ms=2**40, if_value="U"),
    "set | SET K_0=V, if its version is 258": rc.set("K_0", "V", if_version=258),
    "del | DEL K_0": rc.delete("K_0"),
    "exists | EXISTS K_0, linearizable": rc.exists("K_0"),
    "expire | EXPIRE K_0 in 1500 ms": rc.expire("K_0", 1500),
    "persist | PERSIST K_0": rc.persist("K_0"),
    "ttl | TTL K_0, linearizable": rc.ttl("K_0"),
    "incrby | INCRBY K_0 -2": rc.incr("K_0", -2),
    "mget | MGET a b, linearizable": rc.mget(["a", "b"]),
    "mset | MSET a=1 b=2": a_and_b,
    "count | COUNT of database 0, linearizable": rc.count(),
    "clear | CLEAR database 3": rc.clear(3),
    "clear | CLEAR all databases": rc.clear(None),
    "batch | BATCH if a has version 9 and b of database 1 is absent: SET a=1, GET b": guarded,
    "batch-all | BATCH: GET EXISTS TTL of a, COUNT, SET a=1, DEL EXPIRE (1 ms) PERSIST INCRBY (1) a,"
    " CLEAR all": rc.batch(everything),
    "session | SESSION": rc.open_session(),
    "stamped-set | STAMPED session 7 sequence 1: SET K_0=V_0": rc.stamped(7, 1, rc.set("K_0", "V_0")),
    "stamped-mset | STAMPED session 7 sequence 1: MSET a=1 b=2": rc.stamped(7, 1, a_and_b),
    "join | JOIN node2 at 127.0.0.1:1112": rc.join("node2", "127.0.0.1:1112"),
    "leave | LEAVE node2": rc.leave("node2"),
    "members | MEMBERS": rc.members(),
    "transfer | TRANSFER to node2": rc.transfer("node2"),
    "transfer | TRANSFER to anyone": rc.transfer(),
    "status | STATUS": rc.status(),
}

n1 = Member("n1", 1, "h:4001", "h:3001", True, True)
n2 = Member("n2", 2**128 - 1, "h:4002", "h:3002", False, False)
no_reason = OutcomeUnknown("the classic reply gives no reason")
not_an_integer = Refused("not an integer", "value is not an integer or out of range")
all_answers = [Item(b"1", 7), True, rc.NO_DEADLINE, 2, SetResult(True, 8), True, False, False, not_an_integer, None]

REPLIES = {
    "classic-set | done": None,
    "classic-set | failed": no_reason,
    "classic-get | V_0": b"V_0",
    "classic-get | no such key": None,
    "classic-get | failed": no_reason,
    "classic-join | done": None,
    "classic-join | failed": no_reason,
    "ping | done": None,
    "get | version 7, V_0": Item(b"V_0", 7),
    "get | no such key": None,
    "set | version 7": SetResult(True, 7),
    "set | condition does not hold, version 6": SetResult(False, 6),
    "set | invalid expiry": Refused("invalid expiry", "invalid expire time"),
    "set | outcome unknown": OutcomeUnknown("why"),
    "del | removed": True,
    "exists | absent": False,
    "expire | deadline set": True,
    "persist | had no deadline": False,
    "ttl | 1500 ms left": 1500,
    "ttl | no deadline": rc.NO_DEADLINE,
    "ttl | no such key": None,
    "incrby | -2": -2,
    "incrby | not an integer": not_an_integer,
    "incrby | overflow": Refused("overflow", "increment or decrement would overflow"),
    "mget | version 7 1, no such key": [Item(b"1", 7), None],
    "mset | version 8, version 8": [SetResult(True, 8)] * 2,
    "count | 258 keys": 258,
    "clear | done": None,
    "batch | version 8; version 7 2": [SetResult(True, 8), Item(b"2", 7)],
    "batch | a guard does not hold": Refused("guard failed", "a guard does not hold"),
    "batch-all | version 7 1; 1; no deadline; 2; version 8; 1; 0; 0; not an integer; done": all_answers,
    "session | session 7": 7,
    "stamped-set | version 7": SetResult(True, 7),
    "stamped-mset | version 8, version 8": [SetResult(True, 8)] * 2,
    "join | done": None,
    "leave | refused": Refused("refused", "why"),
    "members | n1 (node 1, h:4001, h:3001, voter, leader), n2 (node 2^128-1, h:4002, h:3002)": [n1, n2],
    "transfer | done": None,
    "status | n1, node 1, cluster 2, leader, led by n1, term 3, last 14, durable 13, commit 12, applied 11,"
    " log 2^20, keys 10, memory 4096 of 2^30, hash 2^64-1, log time 1700000000000, offset -5,"
    ' the two members, "disk is slow"': rc.Status(
        "n1", 1, 2, "leader", "n1", 3, 14, 13, 12, 11, 2**20, 10, 4096, 2**30, 2**64 - 1,
        1_700_000_000_000, -5, [n1, n2], ["disk is slow"],
    ),  # fmt: skip
}
for kind in ("invalid", "no leader", "out of memory", "disk full", "busy", "session expired", "refused", "not serving"):
    REPLIES["set | " + kind] = Refused(kind, "why")


def same(one, other):
    """Equal, errors too, which Python compares by identity."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, rc.Error):
        return type(one) is type(other) and str(one) == str(other)
    return type(one) is type(other) and one == other


def expect(what, found, expected):
    assert same(found, expected), f"{what}: found {found!r}, expected {expected!r}"


def golden():
    by_name = {}
    for says, request in REQUESTS.items():
        by_name.setdefault(says.split(" | ")[0], request)
    found = {"request": [], "reply": []}
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        kind, name, digits, says = (column.strip() for column in line.split("|"))
        data, says = bytes.fromhex(digits), f"{name} | {says}"
        found[kind].append(says)
        if kind == "request":
            expect(line, REQUESTS[says].encode().hex(), data.hex())
            continue
        request = by_name[name]
        for length in range(len(data)):
            expect(f"{length} bytes of {line}", request.decode(bytearray(data[:length])), None)
        outcome, length = request.decode(bytearray(data + b"behind"))
        expect(line, outcome, REPLIES[says])
        expect("the length of " + line, length, len(data))
    expect("the requests", found["request"], list(REQUESTS))
    expect("the replies", sorted(found["reply"]), sorted(REPLIES))
    return f"{len(REQUESTS)} requests, {len(REPLIES)} replies"


class Fake:
    """A node that answers one request after the other with these bytes; None hangs up."""

    def __init__(self, *replies):
        self.seen, self._replies = [], list(replies)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            with connection:
                while True:
                    request = connection.recv(65536)
                    if not request:
                        break
                    self.seen.append(request)
                    reply = self._replies.pop(0)
                    if reply is None:
                        break
                    connection.sendall(bytes.fromhex(reply))


def nobody():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "127.0.0.1:%d" % listener.getsockname()[1]


def error_of(ask, *args, **kwargs):
    try:
        return f"no error but {ask(*args, **kwargs)!r}"
    except rc.Error as error:
        return error


STORED, SESSION = "01080000000700000000000000", "01080000000500000000000000"
NO_LEADER, EXPIRED = "0403000000776879", "0a03000000776879"


def failover():
    def client(*nodes, **options):
        addresses = [node if isinstance(node, str) else node.address for node in nodes]
        return Client(addresses, timeout_s=2, **options)

    # A read whose reply is lost goes to the next address.
    expect("read", client(Fake(None), Fake("0300000000")).get("a"), None)
    # A write does not: it may have taken effect.
    lost, other = Fake(None), Fake(STORED)
    expect("lost write", type(error_of(client(lost, other).set, "a", "1")), OutcomeUnknown)
    expect("not sent again", other.seen, [])
    # With session and sequence it does, with the same ones.
    lost, other = Fake(SESSION, None), Fake(STORED)
    expect("stamped", client(lost, other, session=True).set("a", "1"), SetResult(True, 7))
    expect("the same bytes", other.seen, lost.seen[1:])
    # A session that has expired is replaced; surely nothing was executed.
    node = Fake(SESSION, EXPIRED, SESSION, STORED)
    expect("expired", client(node, session=True).set("a", "1"), SetResult(True, 7))
    # But not if an attempt before may have been executed.
    cache = client(Fake(SESSION, None), Fake(EXPIRED), session=True)
    expect("uncertain", type(error_of(cache.set, "a", "1")), OutcomeUnknown)
    # Nothing was sent: the next address.
    expect("nobody there", client(nobody(), Fake(STORED)).set("a", "1"), SetResult(True, 7))
    # Surely not applied, but a write without a stamp is not repeated by itself.
    other = Fake(STORED)
    expect("no leader", error_of(client(Fake(NO_LEADER), other).set, "a", "1"), Refused("no leader", "why"))
    expect("not sent again", other.seen, [])
    expect("all gone", type(error_of(client(nobody(), nobody()).set, "a", "1")), Unreachable)
    # What breaks a limit is refused before it is sent.
    expect("too long", error_of(rc.get, b"k" * 65537).kind, "invalid")
    # A node that does not answer.
    silent = socket.create_server(("127.0.0.1", 0))
    cache = Client(["127.0.0.1:%d" % silent.getsockname()[1]], timeout_s=0.1)
    expect("silent", type(error_of(cache.set, "a", "1")), OutcomeUnknown)
    expect("silent to a read", type(error_of(cache.get, "a")), Unreachable)


def live(address):
    me = "python:"
    a, b, n = me + "a", me + "b", me + "n"
    with Client(address.split(","), session=True) as cache:
        cache.ping()
        for key in (a, b, n):
            cache.delete(key)
        expect("get nothing", cache.get(a), None)
        stored = cache.set(a, b"\0\xff")
        expect("get", cache.get(a), Item(b"\0\xff", stored.version))
        assert cache.get(a, stale=True) is not None
        expect("ttl of what stays", cache.ttl(a), rc.NO_DEADLINE)
        assert cache.set(a, "1", ttl_ms=60_000).stored and 0 < cache.ttl(a) <= 60_000
        expect("persist", (cache.persist(a), cache.persist(a)), (True, False))
        expect("expire", (cache.expire(a, 60_000), cache.expire(b, 1)), (True, False))
        expect("nx, xx", (cache.set(a, "2", nx=True).stored, cache.set(b, "2", xx=True).stored), (False, False))
        # It lives shortly, and then never again.
        cache.set(b, "short", ttl_ms=50)
        time.sleep(0.2)
        expect("expired", (cache.exists(b), cache.ttl(b)), (False, None))
        expect("incr", (cache.incr(n), cache.incr(n, -3)), (1, -2))
        cache.set(b, "no number")
        expect("incr of text", error_of(cache.incr, b).kind, "not an integer")
        # Compare and set, by value and by version.
        expect("cas", (cache.set(a, "3", if_value="2").stored, cache.set(a, "3", if_value="1").stored), (False, True))
        item = cache.get(a)
        expect("cas by version", cache.set(a, "4", if_version=item.version).stored, True)
        expect("and again", cache.set(a, "5", if_version=item.version).stored, False)
        stored = cache.mset({a: "x", b: "y"})
        expect("mget", cache.mget([a, me + "none", b]), [Item(b"x", stored[0].version), None, Item(b"y", stored[1].version)])
        guards = [(a, stored[0].version)]
        expect("batch", cache.batch([rc.set(a, "z"), rc.incr(a), rc.get(b)], guards)[1].kind, "not an integer")
        expect("its guard", error_of(cache.batch, [rc.delete(a)], guards).kind, "guard failed")
        # Many at once, in order.
        cache.delete(n)
        expect("pipeline", cache.pipeline([rc.incr(n)] * 1000 + [rc.get(n)])[999:-1], [1000])
        big = b"v" * (4 << 20)
        outcomes = cache.pipeline([rc.set(a, big)] + [rc.get(a)] * 4 + [rc.delete(a)])
        expect("large values", [outcome.value == big for outcome in outcomes[1:-1]], [True] * 4)
        # A write that is sent twice takes effect once.
        session = cache.call(rc.open_session())
        add = rc.stamped(session, 1, rc.incr(n))
        expect("session", cache.pipeline([add, add, rc.stamped(session, 2, rc.incr(n))]), [1001, 1001, 1002])
        expect("no such session", error_of(cache.call, rc.stamped(2**63, 1, rc.incr(n))).kind, "session expired")
        # The classic three.
        expect("classic", cache.pipeline([rc.classic_set(a, "c", 60), rc.classic_get(a)]), [None, b"c"])
        # The cluster.
        members, status = cache.members(), cache.status()
        assert status.name in [member.name for member in members] and any(member.voter for member in members)
        assert status.role in rc.ROLES and status.commit <= status.last and status.members == members, status
        for admin in (lambda: cache.leave("nobody"), lambda: cache.transfer("nobody"), lambda: cache.join("ghost", nobody())):
            expect("refused", getattr(error_of(admin), "kind", "?"), "refused")
        assert cache.count() >= 2
        for key in (a, b, n):
            cache.delete(key)


if __name__ == "__main__":
    print("golden bytes:", golden())
    failover()
    print("failing over: as it should")
    if sys.argv[1:2] == ["--live"]:
        live(sys.argv[2])
        print("live: all well at", sys.argv[2])
