"""A client of raftcache, in one file, with nothing but the standard library.

    with Client(["127.0.0.1:3001", "127.0.0.1:3002"], session=True) as cache:
        cache.set("greeting", "hello", ttl_ms=10_000)
        print(cache.get("greeting").value)
        one, two = cache.pipeline([get("one"), incr("two")])

It speaks the framed binary protocol; `src/protocol/binary.rs` draws the bytes.
A `Request` is bytes plus how to read the reply, because a reply does not say
what it replies to. Functions of this module make requests (`get`, `set`, ...);
a `Client` sends them, many at once with `pipeline`, and has a method of the same
name for each.

Any node answers any request, so a client has one connection. **The next address
is tried only if that cannot execute anything twice**: nothing was sent, or the
request is a read, or it carries a session and a sequence by which the cluster
recognises it, which `session=True` gives to every write. Hence three errors:

* `Unreachable`: no node answered, and nothing took effect;
* `Refused`: a node said no, with kind and message, and nothing took effect;
* `OutcomeUnknown`: it may or may not have taken effect.

A key or value is bytes, or str for its UTF-8; `Key(name, db)` is a key of another
database. Times are milliseconds. Pitfalls: a write of a pipeline that had to be
sent again may take effect after those behind it; `version` is 0 for an absent key.

Missing on purpose: threads (one client each), a pool, waiting for a leader.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections import namedtuple
from typing import Any, Callable, Iterable, NamedTuple, Optional, Union

NO_DEADLINE = -1
"""What `ttl` says of a key that stays."""

KEY_BYTES, VALUE_BYTES, NAME_BYTES = 64 << 10, 16 << 20, 1 << 10
BATCH_COMMANDS, REQUEST_BYTES, REPLY_BYTES = 10_000, 32 << 20, 64 << 20

KINDS = {
    2: "invalid", 4: "no leader", 6: "out of memory", 7: "disk full", 8: "busy",
    10: "session expired", 11: "refused", 12: "not serving", 13: "guard failed",
    14: "not an integer", 15: "overflow", 16: "invalid expiry",
}  # fmt: skip
ROLES = ("follower", "candidate", "leader", "learner", "joining")


class Error(Exception):
    """Why there is no result."""


class Unreachable(Error):
    """No node answered, and nothing took effect."""


class OutcomeUnknown(Error):
    """The write may or may not have taken effect."""


class Refused(Error):
    """A node refused, without effect; `kind` is one of `KINDS`."""

    def __init__(self, kind: str, message: str = ""):
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind, self.message = kind, message


class Malformed(Exception):
    """The bytes are not this protocol; the connection is of no use."""


Key = namedtuple("Key", "name db", defaults=[0])
Item = namedtuple("Item", "value version")
SetResult = namedtuple("SetResult", "stored version")
Member = namedtuple("Member", "name node peer_address client_address voter leader")
Status = namedtuple(
    "Status",
    "name node cluster role leader term last durable commit applied log_bytes keys memory_bytes"
    " memory_limit_bytes state_hash log_time_ms clock_offset_ms members warnings",
)


# -- Replies ------------------------------------------------------------------


class _Reader:
    """Takes fields off the front of a payload, never more than there are."""

    def __init__(self, payload: bytes):
        self._payload, self._at = payload, 0

    def take(self, length: int) -> bytes:
        taken = self._payload[self._at : self._at + length]
        if len(taken) < length:
            raise Malformed("the payload ends early")
        self._at += length
        return taken

    def number(self, layout: str) -> int:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def u128(self) -> int:
        return int.from_bytes(self.take(16), "little")

    def data(self) -> bytes:
        return self.take(self.number("I"))

    def string(self) -> str:
        return self.data().decode("utf-8", "replace")

    def rest(self) -> bytes:
        return self.take(len(self._payload) - self._at)


# A form reads the payload of status 1.
Form = Callable[[_Reader], Any]


def _nothing(_: _Reader) -> None: ...  # fmt: skip
def _u64(reader: _Reader) -> int: return reader.number("Q")  # fmt: skip
def _i64(reader: _Reader) -> int: return reader.number("q")  # fmt: skip
def _ttl(reader: _Reader) -> int: return reader.number("q")  # fmt: skip
def _flag(reader: _Reader) -> bool: return reader.number("q") != 0  # fmt: skip
def _bytes(reader: _Reader) -> bytes: return reader.rest()  # fmt: skip
def _item(reader: _Reader) -> Item: return Item(version=reader.number("Q"), value=reader.rest())  # fmt: skip
def _stored(reader: _Reader) -> SetResult: return SetResult(True, reader.number("Q"))  # fmt: skip


def _list(forms: list) -> Form:
    def read(reader: _Reader) -> list:
        if reader.number("I") != len(forms):
            raise Malformed("not as many replies as commands")
        return [_outcome(form, reader.number("B"), reader.data()) for form in forms]

    return read


def _versioned(payload: bytes) -> _Reader:
    reader = _Reader(payload)
    if reader.number("B") != 1:
        raise Malformed("a newer version than this client knows")
    return reader


# Members and status may grow: what stands behind the known fields is skipped.
def _members(reader: _Reader) -> list:
    reader = _versioned(reader.rest())
    return [_member(_Reader(reader.data())) for _ in range(reader.number("I"))]


def _member(record: _Reader) -> Member:
    fields = record.string(), record.u128(), record.string(), record.string()
    flags = record.number("B")
    return Member(*fields, voter=bool(flags & 1), leader=bool(flags & 2))


def _status(reader: _Reader) -> Status:
    reader = _versioned(reader.rest())
    name, node, cluster, role = reader.string(), reader.u128(), reader.u128(), reader.number("B")
    if role >= len(ROLES):
        raise Malformed("unknown role")
    leader = reader.string() or None
    numbers = [reader.number("Q") for _ in range(11)] + [reader.number("q")]
    members = _members(_Reader(reader.data()))
    warnings = [reader.string() for _ in range(reader.number("I"))]
    return Status(name, node, cluster, ROLES[role], leader, *numbers, members, warnings)


def _outcome(form: Form, status: int, payload: bytes) -> Any:
    """What one reply says: a result, or an `Error` as a value."""
    reader = _Reader(payload)
    if status == 0:
        raise Malformed("status 0")
    if status == 1:
        result = form(reader)
    elif status == 3 and form in (_item, _ttl, _bytes):
        result = None
    elif status == 9 and form is _stored:
        result = SetResult(False, reader.number("Q"))
    else:
        text = payload.decode("utf-8", "replace")
        # A status of a later version says nothing about the outcome.
        return Refused(KINDS[status], text) if status in KINDS else OutcomeUnknown(text)
    if reader.rest():
        raise Malformed("bytes behind the payload")
    return result


# -- Requests -----------------------------------------------------------------

READ, WRITE, STAMPED, ONCE = "read", "write", "stamped write", "not a write to the key space"


class Request(NamedTuple):
    """Opcode and fields, how to read the reply, and whether it may be repeated."""

    head: bytes
    fields: bytes
    form: Form
    kind: str
    classic: bool = False

    def encode(self) -> bytes:
        if self.classic:
            return self.head + self.fields
        return self.head + _data(self.fields, REQUEST_BYTES, "request")

    def decode(self, buffer: bytearray) -> Optional[tuple]:
        """Outcome and length of the reply that `buffer` begins with, if it is complete."""
        if not buffer:
            return None
        if self.classic and self.form is _nothing:
            return self._classic_outcome(buffer[0], b""), 1
        if len(buffer) < 5:
            return None
        (length,) = struct.unpack_from("<I", buffer, 1)
        if length > REPLY_BYTES:
            raise Malformed("the reply is over the limit")
        if len(buffer) < 5 + length:
            return None
        payload = bytes(buffer[5 : 5 + length])
        if self.classic:
            return self._classic_outcome(buffer[0], payload), 5 + length
        return _outcome(self.form, buffer[0], payload), 5 + length

    def _classic_outcome(self, status: int, payload: bytes) -> Any:
        if status == 2:
            return OutcomeUnknown("the classic reply gives no reason")
        return _outcome(self.form, status, payload)


def _data(data: Union[str, bytes], limit: int, what: str) -> bytes:
    data = data.encode() if isinstance(data, str) else bytes(data)
    if len(data) > limit:
        raise Refused("invalid", f"a {what} of {len(data)} bytes; the limit is {limit}")
    return struct.pack("<I", len(data)) + data


def _key(key: Union[str, bytes, Key]) -> bytes:
    key = key if isinstance(key, Key) else Key(key)
    return struct.pack("<B", key.db) + _data(key.name, KEY_BYTES, "key")


def _value(value: Union[str, bytes]) -> bytes:
    return _data(value, VALUE_BYTES, "value")


def _name(name: str) -> bytes:
    return _data(name, NAME_BYTES, "name")


def _count(things: list) -> bytes:
    if len(things) > BATCH_COMMANDS:
        raise Refused("invalid", f"{len(things)} commands; the limit is {BATCH_COMMANDS}")
    return struct.pack("<I", len(things))


def _expiry(ttl_ms: Optional[int], at_ms: Optional[int], keep_ttl: bool) -> bytes:
    if (ttl_ms is not None) + (at_ms is not None) + keep_ttl > 1:
        raise ValueError("at most one of ttl_ms, at_ms and keep_ttl")
    if ttl_ms is not None:
        return struct.pack("<BQ", 2, ttl_ms)
    if at_ms is not None:
        return struct.pack("<BQ", 3, at_ms)
    return b"\1" if keep_ttl else b"\0"


def _condition(nx: bool, xx: bool, if_value: Any, if_version: Optional[int]) -> bytes:
    if nx + xx + (if_value is not None) + (if_version is not None) > 1:
        raise ValueError("at most one of nx, xx, if_value and if_version")
    if if_value is not None:
        return b"\3" + _value(if_value)
    if if_version is not None:
        return struct.pack("<BQ", 4, if_version)
    return b"\1" if nx else b"\2" if xx else b"\0"


def _read(opcode: int, fields: bytes, form: Form, stale: bool) -> Request:
    return Request(bytes([opcode]), bytes([stale]) + fields, form, READ)


def _write(opcode: int, fields: bytes, form: Form) -> Request:
    return Request(bytes([opcode]), fields, form, WRITE)


def _admin(opcode: int, fields: bytes, form: Form, kind: str) -> Request:
    return Request(bytes([0x1F, opcode]), fields, form, kind)


def ping() -> Request:
    return Request(b"\x10", b"", _nothing, READ)


def get(key, *, stale: bool = False) -> Request:
    """An `Item`, or None."""
    return _read(0x11, _key(key), _item, stale)


def set(key, value, *, ttl_ms=None, at_ms=None, keep_ttl=False,
        nx=False, xx=False, if_value=None, if_version=None) -> Request:  # fmt: skip
    """A `SetResult`; an earlier deadline goes unless `keep_ttl`."""
    expiry = _expiry(ttl_ms, at_ms, keep_ttl)
    condition = _condition(nx, xx, if_value, if_version)
    return _write(0x12, _key(key) + _value(value) + expiry + condition, _stored)


def delete(key) -> Request:
    """Whether it was there."""
    return _write(0x13, _key(key), _flag)


def exists(key, *, stale: bool = False) -> Request:
    return _read(0x14, _key(key), _flag, stale)


def expire(key, ttl_ms=None, *, at_ms=None) -> Request:
    """Whether it was there. `at_ms` is since 1970; what is past removes the key."""
    if ttl_ms is None and at_ms is None:
        raise ValueError("one of ttl_ms and at_ms")
    return _write(0x15, _key(key) + _expiry(ttl_ms, at_ms, False), _flag)


def persist(key) -> Request:
    """Whether it had a deadline."""
    return _write(0x17, _key(key), _flag)


def ttl(key, *, stale: bool = False) -> Request:
    """Milliseconds left, `NO_DEADLINE`, or None for no such key."""
    return _read(0x18, _key(key), _ttl, stale)


def incr(key, by: int = 1) -> Request:
    """The new number."""
    return _write(0x19, _key(key) + struct.pack("<q", by), _i64)


def mget(keys: Iterable, *, stale: bool = False) -> Request:
    """An `Item` or None for each, all of one moment."""
    keys = [_key(key) for key in keys]
    return _read(0x1A, _count(keys) + b"".join(keys), _list([_item] * len(keys)), stale)


def mset(pairs: Union[dict, Iterable]) -> Request:
    """A `SetResult` for each, all at one moment."""
    pairs = list(pairs.items() if isinstance(pairs, dict) else pairs)
    fields = b"".join(_key(key) + _value(value) for key, value in pairs)
    # Of no pairs it changes nothing: a node takes it for a read.
    kind = WRITE if pairs else READ
    return Request(b"\x1b", _count(pairs) + fields, _list([_stored] * len(pairs)), kind)


def count(db: int = 0, *, stale: bool = False) -> Request:
    """How many keys the database has."""
    return _read(0x1C, bytes([db]), _i64, stale)


def clear(db: Optional[int]) -> Request:
    """Remove all keys of a database, or of all with None."""
    return _write(0x1D, bytes([0xFF if db is None else db]), _nothing)


def batch(commands: Iterable, guards: Iterable = (), *, stale: bool = False) -> Request:
    """Single commands that take effect together: a list of results, a `Refused` among
    them for one that had no effect. A guard is a key and the version it must have,
    else all is refused as "guard failed"."""
    commands, guards = list(commands), list(guards)
    fields = _count(guards) + b"".join(_key(key) + struct.pack("<Q", v) for key, v in guards)
    fields += _count(commands)
    for command in commands:
        if len(command.head) != 1 or not 0x11 <= command.head[0] <= 0x1D or command.head[0] in (0x1A, 0x1B):
            raise ValueError("only single commands go into a batch")
        # Of a batch, not of each of its commands, is it said how fresh reads must be.
        fields += command.head + command.fields[command.kind == READ :]
    kind = WRITE if any(command.kind == WRITE for command in commands) else READ
    form = _list([command.form for command in commands])
    return Request(b"\x1e", bytes([stale]) + fields, form, kind)


def open_session() -> Request:
    """The number of a new session. One too many is forgotten by itself."""
    return _admin(0x01, b"", _u64, READ)


def stamped(session: int, sequence: int, write: Request) -> Request:
    """The same write, executed once however often it is sent. Sequences count from 1."""
    if write.kind != WRITE:
        raise ValueError("only a write is stamped")
    fields = struct.pack("<QQ", session, sequence) + write.head + write.fields
    return _admin(0x02, fields, write.form, STAMPED)


def join(name: str, peer_address: str) -> Request:
    return _admin(0x03, _name(name) + _name(peer_address), _nothing, ONCE)


def leave(name_or_address: str) -> Request:
    return _admin(0x04, _name(name_or_address), _nothing, ONCE)


def members() -> Request:
    """A list of `Member`."""
    return _admin(0x05, b"", _members, READ)


def transfer(to: str = "") -> Request:
    """Hand leadership to a member, or to the most caught-up one."""
    return _admin(0x06, _name(to), _nothing, ONCE)


def status() -> Request:
    """The `Status` of the node that answers."""
    return _admin(0x07, b"", _status, READ)


def classic_set(key: Union[str, bytes], value, ttl_s: int = 0) -> Request:
    fields = _data(key, KEY_BYTES, "key") + _value(value) + struct.pack("<i", ttl_s)
    return Request(b"\x01", fields, _nothing, ONCE, classic=True)


def classic_get(key: Union[str, bytes]) -> Request:
    return Request(b"\x02", _data(key, KEY_BYTES, "key"), _bytes, READ, classic=True)


def classic_join(name: str, peer_address: str) -> Request:
    return Request(b"\x03", _name(name) + _name(peer_address), _nothing, ONCE, classic=True)


# -- The client ---------------------------------------------------------------


class _Connection:
    """Writes and reads in turns, as the socket allows: who wrote a long pipeline to its
    end before reading would wait for a node that waits for being read."""

    def __init__(self, address: str, timeout_s: float):
        address = address[len("http://") :] if address.startswith("http://") else address
        host, _, port = address.rstrip("/").rpartition(":")
        where = host.strip("[]") or "127.0.0.1", int(port)
        self._socket = socket.create_connection(where, timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._timeout_s, self._input, self._output = timeout_s, bytearray(), bytearray()

    def close(self) -> None:
        self._selector.close()
        self._socket.close()

    def is_clean(self) -> bool:
        """At rest, and not closed by the node meanwhile, as far as can be known."""
        return not self._input and not self._selector.select(0)

    def send(self, request: Request) -> None:
        self._output += request.encode()

    def receive(self, request: Request) -> Any:
        """The outcome of the oldest request without one, which is this."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            decoded = request.decode(self._input)
            if decoded:
                outcome, length = decoded
                del self._input[:length]
                return outcome
            self._exchange(deadline)

    def _exchange(self, deadline: float) -> None:
        writes = selectors.EVENT_WRITE if self._output else 0
        self._selector.modify(self._socket, selectors.EVENT_READ | writes)
        ready = self._selector.select(max(0.0, deadline - time.monotonic()))
        self._selector.modify(self._socket, selectors.EVENT_READ)
        if not ready:
            raise TimeoutError(f"no reply in {self._timeout_s} s")
        if ready[0][1] & selectors.EVENT_WRITE:
            del self._output[: self._socket.send(self._output[: 1 << 18])]
        if ready[0][1] & selectors.EVENT_READ:
            received = self._socket.recv(1 << 18)
            if not received:
                raise ConnectionError("the node closed the connection")
            self._input += received


class _Attempt:
    """One request on its way through the addresses."""

    def __init__(self, request: Request):
        self.asked = self.request = request
        self.uncertain = False  # an attempt may have taken effect: only a result settles it
        self.settled = False  # no more attempts
        self.outcome: Any = Unreachable("no address")

    def repeatable(self) -> bool:
        return self.request.kind in (READ, STAMPED)

    def lost(self, why: str) -> None:
        """The connection failed after the request was handed to it."""
        self.uncertain |= self.request.kind != READ
        self.settled = not self.repeatable()
        self.failed(Unreachable(why))

    def answered(self, outcome: Any) -> None:
        if not isinstance(outcome, Error):
            self.outcome, self.settled = outcome, True
            return
        unknown = isinstance(outcome, OutcomeUnknown)
        self.uncertain |= unknown
        another_may_do = unknown or outcome.kind in ("no leader", "not serving")
        self.settled = not (self.repeatable() and another_may_do)
        self.failed(outcome)

    def unreached(self, why: str) -> None:
        """No node this time; what another one said before says more."""
        if not isinstance(self.outcome, Refused):
            self.failed(Unreachable(why))

    def failed(self, error: Error) -> None:
        """`error` says that this attempt had no effect; an earlier one may have."""
        self.outcome = OutcomeUnknown(str(error)) if self.uncertain else error

    def needs_another_session(self) -> bool:
        """Surely not executed, and the client's own session is to blame."""
        expired = isinstance(self.outcome, Refused) and self.outcome.kind == "session expired"
        return expired and self.request is not self.asked


class Client:
    """A client of the nodes at these addresses, each `host:port`.

    It connects when it first has to. `timeout_s` is for a connection and for each
    reply; 5 s is more than a node takes to say that it cannot.
    """

    def __init__(self, addresses: Iterable[str], *, timeout_s: float = 5.0, session: bool = False):
        self._addresses = list(addresses)
        self._at, self._connection = 0, None
        self._timeout_s, self._stamps_writes = timeout_s, session
        self._session, self._sequence = None, 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def call(self, request: Request) -> Any:
        """The result of one request, or its error is raised."""
        (outcome,) = self.pipeline([request])
        if isinstance(outcome, Error):
            raise outcome
        return outcome

    def pipeline(self, requests: Iterable[Request]) -> list:
        """All are sent before the first reply is awaited. An outcome for each, errors
        among them as values."""
        attempts = [_Attempt(request) for request in requests]
        # Twice, because a session that was idle may have expired.
        for _ in range(2):
            try:
                self._stamp(attempts)
            except Error as error:
                for attempt in _unsettled(attempts):
                    attempt.failed(error)
                break
            self._run(attempts)
            expired = [attempt for attempt in attempts if attempt.needs_another_session()]
            if not expired:
                break
            self._session = None
            for attempt in expired:
                attempt.request, attempt.settled = attempt.asked, False
        return [attempt.outcome for attempt in attempts]

    def _stamp(self, attempts: list) -> None:
        for attempt in _unsettled(attempts):
            if self._stamps_writes and attempt.request.kind == WRITE:
                if self._session is None:
                    self._session, self._sequence = self._open_session(), 0
                self._sequence += 1
                attempt.request = stamped(self._session, self._sequence, attempt.asked)

    def _open_session(self) -> int:
        attempt = _Attempt(open_session())
        self._run([attempt])
        if isinstance(attempt.outcome, Error):
            raise attempt.outcome
        return attempt.outcome

    def _run(self, attempts: list) -> None:
        """Tries each address once, until every request is settled; that of an old
        connection once more at the end, because the node may have restarted."""
        for _ in range(len(self._addresses) + (self._connection is not None)):
            try:
                # Taken out, so that a call that is interrupted takes its unread replies along.
                connection = self._take_connection()
            except (OSError, ValueError) as error:
                for attempt in _unsettled(attempts):
                    attempt.unreached(f"{self._addresses[self._at]}: {error}")
            else:
                self._exchange(connection, attempts)
            if not _unsettled(attempts):
                return
            self.close()
            self._at = (self._at + 1) % len(self._addresses)

    def _take_connection(self) -> _Connection:
        connection, self._connection = self._connection, None
        if connection and connection.is_clean():
            return connection
        if connection:
            connection.close()
        return _Connection(self._addresses[self._at], self._timeout_s)

    def _exchange(self, connection: _Connection, attempts: list) -> None:
        sent, why = _unsettled(attempts), None
        for attempt in sent:
            connection.send(attempt.request)
        for attempt in sent:
            if why is None:
                try:
                    attempt.answered(connection.receive(attempt.request))
                    continue
                except (OSError, Malformed) as error:
                    why = f"{self._addresses[self._at]}: {error}"
                    connection.close()
            attempt.lost(why)
        if why is None:
            self._connection = connection


def _unsettled(attempts: list) -> list:
    return [attempt for attempt in attempts if not attempt.settled]


def _method(make: Callable[..., Request]) -> Callable[..., Any]:
    def method(self: Client, *args: Any, **kwargs: Any) -> Any:
        return self.call(make(*args, **kwargs))

    method.__name__, method.__doc__ = make.__name__, make.__doc__
    return method


for _make in (ping, get, set, delete, exists, expire, persist, ttl, incr, mget, mset, count, clear,
              batch, join, leave, members, transfer, status):  # fmt: skip
    setattr(Client, _make.__name__, _method(_make))
