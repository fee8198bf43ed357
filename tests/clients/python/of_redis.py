"""What users of redis-py do, and those of what descends from it."""

import asyncio
import datetime
import select
import socket


def check(library, Client, AsyncClient, **address):
    with Client(**address, db=4, client_name="a-client") as client:
        client.flushdb()
        check_names(client)
        check_strings(library, client)
        check_deadlines(client)
        check_pipelines(library, client)
        check_transactions(library, Client(**address, db=4), client)
        check_scans(client)
        check_reconnect(client)
        client.flushdb()
    check_decoded(Client(**address, db=4, decode_responses=True))
    check_pool(library, Client, address)
    asyncio.run(check_async(AsyncClient(**address, db=4)))


def raises(error, call, *args, **kwargs):
    try:
        found = call(*args, **kwargs)
    except error as expected:
        return str(expected)
    raise AssertionError(f"returned {found!r}")


def check_names(client):
    assert client.ping() is True
    assert client.echo("hello") == b"hello"
    assert client.client_getname() in ("a-client", b"a-client")
    assert client.client_id() > 0
    assert client.client_setinfo("LIB-NAME", "something") is True
    assert client.client_setinfo("LIB-VER", "1.2.3") is True
    seconds, microseconds = client.time()
    assert seconds > 0 and 0 <= microseconds < 1_000_000


def check_strings(library, client):
    assert client.set("text", "värde") is True
    assert client.get("text") == "värde".encode()
    assert client["text"] == client.get("text")
    assert client.get("missing") is None
    everything = bytes(range(256)) * 4096
    assert client.set(b"\x00\r\n\xff", everything) is True
    assert client.get(b"\x00\r\n\xff") == everything
    assert client.set("empty", "") is True and client.get("empty") == b""
    assert client.set("text", "x", nx=True) is None
    assert client.set("new", "x", xx=True) is None
    assert client.set("text", "y", get=True) == "värde".encode()
    assert client.setnx("text", "z") is False
    assert client.getset("text", "z") == b"y"
    assert client.append("text", "zz") == 3 and client.strlen("text") == 3
    assert client.setrange("text", 1, "ab") == 3 and client.getrange("text", 0, -1) == b"zab"
    assert client.mset({"a": 1, "b": 2.5, "c": b"3"}) is True
    assert client.mget("a", "b", "c", "missing") == [b"1", b"2.5", b"3", None]
    assert client.msetnx({"d": 1, "a": 2}) is False and client.get("d") is None
    assert client.incr("number") == 1 and client.incrby("number", 9) == 10
    assert client.decr("number", 11) == -1
    assert client.incrbyfloat("float", 0.5) == 0.5
    raises(library.ResponseError, client.incr, "text")
    assert client.exists("a", "b", "missing", "a") == 3 and "a" in client
    assert client.type("a") == b"string" and client.type("missing") == b"none"
    assert client.delete("a", "b", "missing") == 2 and client.unlink("c") == 1
    assert client.getdel("text") == b"zab" and client.get("text") is None
    assert client.rename("number", "renamed") is True and client.get("renamed") == b"-1"
    raises(library.ResponseError, client.rename, "missing", "other")
    assert client.copy("renamed", "copied") and client.get("copied") == b"-1"
    assert "unknown command" in raises(library.ResponseError, client.execute_command, "NONSENSE")


def check_deadlines(client):
    assert client.set("soon", "x", ex=100) is True and 90 < client.ttl("soon") <= 100
    assert client.set("soon", "x", px=datetime.timedelta(seconds=50)) is True
    assert 40_000 < client.pttl("soon") <= 50_000
    assert client.set("soon", "y", keepttl=True) is True and client.ttl("soon") > 0
    assert client.persist("soon") in (1, True) and client.ttl("soon") == -1
    assert client.ttl("missing") == -2
    assert client.expire("soon", 100) in (1, True) and client.expire("missing", 1) in (0, False)
    assert client.expire("soon", 50, gt=True) in (0, False)
    later = client.time()[0] + 1000
    assert client.expireat("soon", later) in (1, True) and client.expiretime("soon") == later
    assert client.getex("soon", persist=True) == b"y" and client.ttl("soon") == -1
    assert client.setex("soon", 100, "z") is True and client.psetex("soon", 1, "z") is True
    while client.get("soon") is not None:
        pass
    assert client.exists("soon") == 0


def check_pipelines(library, client):
    pipe = client.pipeline(transaction=False)
    for n in range(1000):
        pipe.set(f"pipe:{n}", n).get(f"pipe:{n}")
    assert pipe.execute() == [reply for n in range(1000) for reply in (True, str(n).encode())]
    pipe = client.pipeline(transaction=False)
    pipe.set("pipe", "text").incr("pipe").get("pipe")
    replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and replies[2] == b"text"
    assert isinstance(replies[1], library.ResponseError)


def check_transactions(library, other, client):
    with client.pipeline() as pipe:
        assert pipe.set("balance", 10).incrby("balance", 5).get("balance").execute() == [True, 15, b"15"]
    # Somebody else is faster.
    with client.pipeline() as pipe:
        pipe.watch("balance")
        other.incr("balance")
        pipe.multi()
        pipe.set("balance", 0)
        raises(library.WatchError, pipe.execute)
    assert client.get("balance") == b"16"
    attempts = []

    def double(pipe):
        balance = int(pipe.get("balance"))
        if not attempts:
            other.incr("balance")
        attempts.append(balance)
        pipe.multi()
        pipe.set("balance", 2 * balance)

    assert client.transaction(double, "balance") == [True]
    assert attempts == [16, 17] and client.get("balance") == b"34"
    # An error of one command is that command's; the others are done.
    with client.pipeline() as pipe:
        pipe.set("text", "abc").incr("text").set("after", "1")
        replies = pipe.execute(raise_on_error=False)
    assert isinstance(replies[1], library.ResponseError), replies
    assert (replies[0], replies[2], client.get("after")) == (True, True, b"1")
    other.close()


def check_scans(client):
    client.flushdb()
    names = {f"scan:{n}".encode() for n in range(500)}
    client.mset({name: "x" for name in names} | {"other": "y"})
    assert sorted(client.scan_iter(match="scan:*", count=50)) == sorted(names)
    assert set(client.scan_iter()) == names | {b"other"}
    assert set(client.keys("scan:1?")) == {f"scan:1{n}".encode() for n in range(10)}
    assert client.dbsize() == 501 and client.randomkey() in names | {b"other"}
    assert list(client.scan_iter(_type="STRING", match="oth*")) == [b"other"]
    assert list(client.scan_iter(_type="HASH")) == []


def check_reconnect(client):
    """The node closes a connection; the network cuts one."""
    client.set("kept", "yes")
    connection = client.connection_pool.get_connection("QUIT")
    connection.send_command("QUIT")
    assert connection.read_response() in ("OK", b"OK")
    # Until it is closed: who goes on sooner is told so by the next command.
    assert select.select([connection._sock], [], [], 10)[0]
    client.connection_pool.release(connection)
    assert client.get("kept") == b"yes"
    connection = client.connection_pool.get_connection("GET")
    connection.connect()
    connection._sock.shutdown(socket.SHUT_RDWR)
    client.connection_pool.release(connection)
    assert client.get("kept") == b"yes"
    assert client.client_getname() in ("a-client", b"a-client")


def check_decoded(client):
    assert client.set("text", "ö") is True and client.get("text") == "ö"
    assert client.mget("text", "missing") == ["ö", None]
    client.close()


def check_pool(library, Client, address):
    """Several connections at a time, of one pool."""
    pool = library.ConnectionPool(**address, db=4, max_connections=10)
    clients = [Client(connection_pool=pool) for _ in range(10)]
    taken = [client.pipeline() for client in clients]
    for n, pipe in enumerate(taken):
        pipe.watch(f"pool:{n}")
    assert clients[0].connection_pool is pool
    for n, pipe in enumerate(taken):
        pipe.multi()
        pipe.incr(f"pool:{n}")
        assert pipe.execute() in ([1], [2])
    pool.disconnect()


async def check_async(client):
    assert await client.set("async", "1", ex=100) is True
    assert await client.get("async") == b"1"
    assert await asyncio.gather(*(client.incr("async") for _ in range(50)))
    assert await client.get("async") == b"51"
    async with client.pipeline(transaction=True) as pipe:
        assert await pipe.incr("async").delete("async").execute() == [52, 1]
    await client.aclose()


def connect(client):
    def put(key, value):
        assert client.set(key, value) is True

    return put, client.get
