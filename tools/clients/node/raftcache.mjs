// A client of raftcache, in one file, with nothing but what Node brings along.
//
//     const cache = new Client(['127.0.0.1:3001', '127.0.0.1:3002'], { session: true });
//     await cache.set('greeting', 'hello', { ttlMs: 10_000 });
//     console.log((await cache.get('greeting')).value.toString());
//     const [one, two] = await cache.pipeline([request.get('one'), request.incr('two')]);
//     cache.close();
//
// It speaks the framed binary protocol; src/protocol/binary.rs draws the bytes.
// A request is bytes plus how to read the reply, because a reply does not say what
// it replies to. The functions of `request` make them; a Client has a method of the
// same name for each. What is called while an exchange is under way goes out together
// with the next one, so `Promise.all` over many calls is a pipeline too.
//
// Any node answers any request, so a client has one connection. The next address is
// tried only if that cannot execute anything twice: nothing was sent, or the request
// is a read, or it carries a session and a sequence by which the cluster recognises
// it, which `session: true` gives to every write. Hence three errors:
//
// * Unreachable: no node answered, and nothing took effect;
// * Refused: a node said no, with `kind` and message, and nothing took effect;
// * OutcomeUnknown: it may or may not have taken effect.
//
// A key or value is a Buffer, or a string for its UTF-8; `{ name, db }` is a key of
// another database. Integers of 64 bits and more are BigInt, times are milliseconds.
// Pitfalls: a write of a pipeline that had to be sent again may take effect after
// those behind it; a version of 0n is an absent key.
//
// Missing on purpose: a pool, and waiting for a leader.

import net from 'node:net';

/** What `ttl` says of a key that stays. */
export const NO_DEADLINE = -1n;

export const LIMITS = {
  key: 64 << 10, value: 16 << 20, name: 1 << 10, commands: 10_000, request: 32 << 20, reply: 64 << 20,
};

const KINDS = {
  2: 'invalid', 4: 'no leader', 6: 'out of memory', 7: 'disk full', 8: 'busy', 10: 'session expired',
  11: 'refused', 12: 'not serving', 13: 'guard failed', 14: 'not an integer', 15: 'overflow', 16: 'invalid expiry',
};
const ROLES = ['follower', 'candidate', 'leader', 'learner', 'joining'];

/** Why there is no result; one of the three below. */
export class CacheError extends Error {
  get name() { return this.constructor.name; }
}
/** No node answered, and nothing took effect. */
export class Unreachable extends CacheError {}
/** The write may or may not have taken effect. */
export class OutcomeUnknown extends CacheError {}
/** A node refused, without effect. */
export class Refused extends CacheError {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The bytes are not this protocol; the connection is of no use. */
class Malformed extends Error {}

// ---- Replies -----------------------------------------------------------------

/** Takes fields off the front of a payload, never more than there are. */
class Reader {
  #rest;
  constructor(payload) { this.#rest = payload; }

  take(length) {
    if (length > this.#rest.length) throw new Malformed('the payload ends early');
    const taken = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return taken;
  }
  u8() { return this.take(1)[0]; }
  u32() { return this.take(4).readUInt32LE(); }
  u64() { return this.take(8).readBigUInt64LE(); }
  i64() { return this.take(8).readBigInt64LE(); }
  u128() { return this.u64() | (this.u64() << 64n); }
  bytes() { return this.take(this.u32()); }
  string() { return this.bytes().toString(); }
  rest() { return this.take(this.#rest.length); }
  list(read) { return Array.from({ length: this.u32() }, () => read(this)); }
}

// A form reads the payload of status 1.
const nothing = () => undefined;
const number = (reader) => reader.i64();
const timeLeft = (reader) => reader.i64();
const flag = (reader) => reader.i64() !== 0n;
const stored = (reader) => ({ stored: true, version: reader.u64() });
const session = (reader) => reader.u64();
const item = (reader) => ({ version: reader.u64(), value: reader.rest() });
const plainValue = (reader) => reader.rest();
const listOf = (forms) => (reader) => {
  if (reader.u32() !== forms.length) throw new Malformed('not as many replies as commands');
  return forms.map((form) => outcome(form, reader.u8(), reader.bytes()));
};

// Members and status may grow: what stands behind the known fields is skipped.
function versioned(reader) {
  const inner = new Reader(reader.rest());
  if (inner.u8() !== 1) throw new Malformed('a newer version than this client knows');
  return inner;
}

const memberList = (reader) => versioned(reader).list((members) => {
  const record = new Reader(members.bytes());
  const member = {
    name: record.string(), node: record.u128(), peerAddress: record.string(), clientAddress: record.string(),
  };
  const flags = record.u8();
  return { ...member, voter: (flags & 1) !== 0, leader: (flags & 2) !== 0 };
});

function nodeStatus(payload) {
  const reader = versioned(payload);
  const head = { name: reader.string(), node: reader.u128(), cluster: reader.u128(), role: ROLES[reader.u8()] };
  if (head.role === undefined) throw new Malformed('unknown role');
  // Evaluated in the order in which it is written.
  return {
    ...head, leader: reader.string() || null,
    term: reader.u64(), last: reader.u64(), durable: reader.u64(), commit: reader.u64(), applied: reader.u64(),
    logBytes: reader.u64(), keys: reader.u64(), memoryBytes: reader.u64(), memoryLimitBytes: reader.u64(),
    stateHash: reader.u64(), logTimeMs: reader.u64(), clockOffsetMs: reader.i64(),
    members: memberList(new Reader(reader.bytes())), warnings: reader.list((warnings) => warnings.string()),
  };
}

/** What one reply says: a result, or a CacheError as a value. */
function outcome(form, status, payload) {
  if (status === 0) throw new Malformed('status 0');
  const reader = new Reader(payload);
  let result;
  if (status === 1) result = form(reader);
  else if (status === 3 && [item, timeLeft, plainValue].includes(form)) result = null;
  else if (status === 9 && form === stored) result = { stored: false, version: reader.u64() };
  // A status of a later version says nothing about the outcome.
  else return status in KINDS ? new Refused(KINDS[status], `${payload}`) : new OutcomeUnknown(`${payload}`);
  if (reader.rest().length > 0) throw new Malformed('bytes behind the payload');
  return result;
}

// ---- Requests ----------------------------------------------------------------

const [READ, WRITE, STAMPED, ONCE] = ['read', 'write', 'stamped write', 'not a write to the key space'];

/** Opcode and fields, how to read the reply, and whether it may be repeated. */
class Request {
  constructor(head, fields, form, kind, classic = false) {
    Object.assign(this, { head: Buffer.from(head), fields: Buffer.concat(fields), form, kind, classic });
    if (this.fields.length > LIMITS.request) throw tooLarge('request', this.fields.length, LIMITS.request);
  }

  encode() {
    const length = this.classic ? [] : [u32(this.fields.length)];
    return Buffer.concat([this.head, ...length, this.fields]);
  }

  /** How long the reply is that `input` begins with, as far as that can be told yet. */
  expects(input) {
    const head = this.classic && this.form === nothing ? 1 : 5;
    const length = head === 5 && input.length >= 5 ? input.readUInt32LE(1) : 0;
    if (length > LIMITS.reply) throw new Malformed('the reply is over the limit');
    return head + length;
  }

  /** Outcome and length of the reply that `input` begins with; null while it is incomplete. */
  decode(input) {
    const end = this.expects(input);
    if (input.length < end) return null;
    if (this.classic && input[0] === 2) {
      return { outcome: new OutcomeUnknown('the classic reply gives no reason'), length: end };
    }
    return { outcome: outcome(this.form, input[0], input.subarray(Math.min(5, end), end)), length: end };
  }
}

function integer(bytes, write, value) {
  const buffer = Buffer.alloc(bytes);
  buffer[write](value);
  return buffer;
}
const u8 = (value) => integer(1, 'writeUInt8', Number(value));
const u32 = (value) => integer(4, 'writeUInt32LE', value);
const i32 = (value) => integer(4, 'writeInt32LE', value);
const u64 = (value) => integer(8, 'writeBigUInt64LE', BigInt(value));
const i64 = (value) => integer(8, 'writeBigInt64LE', BigInt(value));

const tooLarge = (what, size, limit) => new Refused('invalid', `a ${what} of ${size}; the limit is ${limit}`);

function data(what, value) {
  const bytes = Buffer.from(value);
  if (bytes.length > LIMITS[what]) throw tooLarge(what, bytes.length, LIMITS[what]);
  return Buffer.concat([u32(bytes.length), bytes]);
}

function counted(things, encode) {
  if (things.length > LIMITS.commands) throw tooLarge('batch', things.length, LIMITS.commands);
  return Buffer.concat([u32(things.length), ...things.map(encode)]);
}

function keyOf(key) {
  const { name, db = 0 } = typeof key === 'string' || key instanceof Uint8Array ? { name: key } : key;
  return Buffer.concat([u8(db), data('key', name)]);
}

/** The one of these alternatives that is given, encoded. */
function either(options, encoders, otherwise) {
  const given = Object.keys(encoders).filter((name) => options[name] !== undefined && options[name] !== false);
  if (given.length > 1) throw new TypeError(`only one of ${given.join(', ')}`);
  return given.length === 0 ? otherwise : encoders[given[0]](options[given[0]]);
}

const expiry = (options) => either(options, {
  ttlMs: (ms) => Buffer.concat([u8(2), u64(ms)]),
  atMs: (ms) => Buffer.concat([u8(3), u64(ms)]),
  keepTtl: () => u8(1),
}, u8(0));

const condition = (options) => either(options, {
  nx: () => u8(1),
  xx: () => u8(2),
  ifValue: (value) => Buffer.concat([u8(3), data('value', value)]),
  ifVersion: (version) => Buffer.concat([u8(4), u64(version)]),
}, u8(0));

const reading = (opcode, form, options, ...fields) =>
  new Request([opcode], [u8(options.stale ?? false), ...fields], form, READ);
const writing = (opcode, form, ...fields) => new Request([opcode], fields, form, WRITE);
const asking = (opcode, form, kind, ...fields) => new Request([0x1f, opcode], fields, form, kind);

/** The opcodes of single commands, which go into a batch. */
const SINGLE = [0x11, 0x12, 0x13, 0x14, 0x15, 0x17, 0x18, 0x19, 0x1c, 0x1d];

export const request = {
  ping: () => new Request([0x10], [], nothing, READ),
  /** `{ value, version }` or null. */
  get: (key, options = {}) => reading(0x11, item, options, keyOf(key)),
  /** `{ stored, version }`; options: ttlMs, atMs, keepTtl; nx, xx, ifValue, ifVersion. */
  set: (key, value, options = {}) =>
    writing(0x12, stored, keyOf(key), data('value', value), expiry(options), condition(options)),
  /** Whether it was there. */
  delete: (key) => writing(0x13, flag, keyOf(key)),
  exists: (key, options = {}) => reading(0x14, flag, options, keyOf(key)),
  /** Whether it was there; options: ttlMs, or atMs since 1970. What is past removes the key. */
  expire: (key, options) => {
    if (options.ttlMs === undefined && options.atMs === undefined) throw new TypeError('one of ttlMs and atMs');
    return writing(0x15, flag, keyOf(key), expiry(options));
  },
  /** Whether it had a deadline. */
  persist: (key) => writing(0x17, flag, keyOf(key)),
  /** Milliseconds left, NO_DEADLINE, or null for no such key. */
  ttl: (key, options = {}) => reading(0x18, timeLeft, options, keyOf(key)),
  /** The new number. */
  incr: (key, by = 1) => writing(0x19, number, keyOf(key), i64(by)),
  /** `{ value, version }` or null for each, all of one moment. */
  mget: (keys, options = {}) => reading(0x1a, listOf(keys.map(() => item)), options, counted(keys, keyOf)),
  /** `{ stored, version }` for each `[key, value]`, all at one moment. */
  mset: (pairs) => {
    const fields = counted(pairs, ([key, value]) => Buffer.concat([keyOf(key), data('value', value)]));
    // Of no pairs it changes nothing: a node takes it for a read.
    return new Request([0x1b], [fields], listOf(pairs.map(() => stored)), pairs.length > 0 ? WRITE : READ);
  },
  /** How many keys a database has. */
  count: (db = 0, options = {}) => reading(0x1c, number, options, u8(db)),
  /** Remove all keys of a database, or of all with null. */
  clear: (db) => writing(0x1d, nothing, u8(db ?? 0xff)),
  /**
   * Single commands that take effect together: a list of results, a Refused among them for one that had no
   * effect. A guard is `[key, version]`; if one does not hold, all is refused as "guard failed".
   */
  batch: (commands, guards = [], options = {}) => {
    const command = (one) => {
      if (one.head.length !== 1 || !SINGLE.includes(one.head[0])) throw new TypeError('not a single command');
      // Of a batch, not of each of its commands, is it said how fresh reads must be.
      return Buffer.concat([one.head, one.fields.subarray(one.kind === READ ? 1 : 0)]);
    };
    const guard = ([key, version]) => Buffer.concat([keyOf(key), u64(version)]);
    const kind = commands.some((one) => one.kind === WRITE) ? WRITE : READ;
    const fields = [u8(options.stale ?? false), counted(guards, guard), counted(commands, command)];
    return new Request([0x1e], fields, listOf(commands.map((one) => one.form)), kind);
  },
  /** The number of a new session. One too many is forgotten by itself. */
  openSession: () => asking(0x01, session, READ),
  /** The same write, executed once however often it is sent. Sequences count from 1. */
  stamped: (of, sequence, write) => {
    if (write.kind !== WRITE) throw new TypeError('only a write is stamped');
    return asking(0x02, write.form, STAMPED, u64(of), u64(sequence), write.head, write.fields);
  },
  join: (name, peerAddress) => asking(0x03, nothing, ONCE, data('name', name), data('name', peerAddress)),
  leave: (nameOrAddress) => asking(0x04, nothing, ONCE, data('name', nameOrAddress)),
  members: () => asking(0x05, memberList, READ),
  /** Hand leadership to a member, or to the most caught-up one. */
  transfer: (to = '') => asking(0x06, nothing, ONCE, data('name', to)),
  /** How the node that answers is. */
  status: () => asking(0x07, nodeStatus, READ),
  classicSet: (key, value, ttlS = 0) =>
    new Request([0x01], [data('key', key), data('value', value), i32(ttlS)], nothing, ONCE, true),
  classicGet: (key) => new Request([0x02], [data('key', key)], plainValue, READ, true),
  classicJoin: (name, peerAddress) =>
    new Request([0x03], [data('name', name), data('name', peerAddress)], nothing, ONCE, true),
};

// ---- The client --------------------------------------------------------------

/** One connection. The socket writes and reads side by side, so a long pipeline cannot block itself. */
class Connection {
  #socket; #timeoutMs; #input = Buffer.alloc(0); #pieces = []; #waiting = 0; #wake = () => {}; #failure = null;

  static async open(address, timeoutMs) {
    const [, host, port] = /^(?:http:\/\/)?(.*):(\d+)\/?$/.exec(address) ?? [];
    if (port === undefined) throw new Error('not host:port');
    const connection = new Connection();
    connection.#timeoutMs = timeoutMs;
    connection.#socket = net.connect({ host: host.replace(/[[\]]/g, '') || '127.0.0.1', port: Number(port), noDelay: true });
    const fail = (why) => {
      connection.#failure ??= why;
      connection.#wake();
    };
    connection.#socket.on('error', (error) => fail(error.message || error.code));
    connection.#socket.on('close', () => fail('the node closed the connection'));
    connection.#socket.on('end', () => fail('the node closed the connection'));
    connection.#socket.on('connect', () => connection.#wake());
    connection.#socket.on('data', (piece) => {
      connection.#pieces.push(piece);
      connection.#waiting += piece.length;
      connection.#wake();
    });
    try {
      await connection.#event(`no connection in ${timeoutMs} ms`, timeoutMs);
      if (connection.#failure !== null) throw new Error(connection.#failure);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  close() { this.#socket.destroy(); }

  /** At rest, and not closed by the node meanwhile, as far as can be known. */
  isClean() { return this.#failure === null && this.#input.length === 0 && this.#pieces.length === 0; }

  send(requests) { this.#socket.write(Buffer.concat(requests.map((one) => one.encode()))); }

  /** The outcome of the oldest request without one, which is this. */
  async receive(one) {
    const deadline = Date.now() + this.#timeoutMs;
    for (;;) {
      // The pieces of a large reply are put together once.
      if (this.#waiting > 0 && this.#input.length + this.#waiting >= one.expects(this.#input)) {
        this.#input = Buffer.concat([this.#input, ...this.#pieces.splice(0)]);
        this.#waiting = 0;
      }
      const decoded = one.decode(this.#input);
      if (decoded !== null) {
        this.#input = this.#input.subarray(decoded.length);
        return decoded.outcome;
      }
      if (this.#failure !== null) throw new Error(this.#failure);
      await this.#event(`no reply in ${this.#timeoutMs} ms`, deadline - Date.now());
    }
  }

  #event(why, waitMs) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(why)), Math.max(0, waitMs));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** One request on its way through the addresses. */
class Attempt {
  /** An attempt may have taken effect: only a result settles it. */
  uncertain = false;
  /** No more attempts. */
  settled = false;
  outcome = new Unreachable('no address');

  constructor(asked) { this.asked = this.request = asked; }

  get repeatable() { return this.request.kind === READ || this.request.kind === STAMPED; }

  /** The connection failed after the request was handed to it. */
  lost(why) {
    this.uncertain ||= this.request.kind !== READ;
    this.settled = !this.repeatable;
    this.failed(new Unreachable(why));
  }

  answered(result) {
    this.outcome = result;
    this.settled = true;
    if (!(result instanceof CacheError)) return;
    const unknown = result instanceof OutcomeUnknown;
    this.uncertain ||= unknown;
    const anotherMayDo = unknown || ['no leader', 'not serving'].includes(result.kind);
    this.settled = !(this.repeatable && anotherMayDo);
    this.failed(result);
  }

  /** No node this time; what another one said before says more. */
  unreached(why) { if (!(this.outcome instanceof Refused)) this.failed(new Unreachable(why)); }

  /** `error` says that this attempt had no effect; an earlier one may have. */
  failed(error) { this.outcome = this.uncertain ? new OutcomeUnknown(error.message) : error; }

  /** Surely not executed, and the client's own session is to blame. */
  get needsAnotherSession() { return this.request !== this.asked && this.outcome?.kind === 'session expired'; }
}

const unsettled = (attempts) => attempts.filter((attempt) => !attempt.settled);

/**
 * A client of the nodes at these addresses, each `host:port`. It connects when it first has to. `timeoutMs` is
 * for a connection and for each reply; 5 s is more than a node takes to say that it cannot.
 */
export class Client {
  #addresses; #timeoutMs; #stampsWrites;
  #at = 0; #connection = null; #session = null; #sequence = 0n;
  #queue = []; #busy = false;

  constructor(addresses, { timeoutMs = 5000, session: stampsWrites = false } = {}) {
    this.#addresses = [...addresses];
    this.#timeoutMs = timeoutMs;
    this.#stampsWrites = stampsWrites;
  }

  close() {
    this.#connection?.close();
    this.#connection = null;
  }

  /** The result of one request, or its error is thrown. */
  async call(one) {
    const [result] = await this.pipeline([one]);
    if (result instanceof CacheError) throw result;
    return result;
  }

  /** All are sent before the first reply is awaited. An outcome for each, errors among them as values. */
  pipeline(requests) {
    return new Promise((resolve) => {
      const attempts = requests.map((one) => new Attempt(one));
      this.#queue.push({ attempts, done: () => resolve(attempts.map((attempt) => attempt.outcome)) });
      if (!this.#busy) this.#work();
    });
  }

  async #work() {
    this.#busy = true;
    // What is asked in the same breath goes out together; and a node that has hung up is heard of.
    await new Promise(setImmediate);
    while (this.#queue.length > 0) {
      const taken = this.#queue.splice(0);
      await this.#settle(taken.flatMap(({ attempts }) => attempts));
      taken.forEach(({ done }) => done());
    }
    this.#busy = false;
  }

  async #settle(attempts) {
    // Twice, because a session that was idle may have expired.
    for (let round = 0; round < 2; round += 1) {
      const error = await this.#stamp(attempts);
      if (error !== null) return unsettled(attempts).forEach((attempt) => attempt.failed(error));
      await this.#run(attempts);
      const expired = attempts.filter((attempt) => attempt.needsAnotherSession);
      if (expired.length === 0) return undefined;
      this.#session = null;
      expired.forEach((attempt) => Object.assign(attempt, { request: attempt.asked, settled: false }));
    }
    return undefined;
  }

  /** Gives every unsettled write a stamp, if this client's writes have one; what failed, or null. */
  async #stamp(attempts) {
    if (!this.#stampsWrites) return null;
    for (const attempt of unsettled(attempts).filter(({ request: { kind } }) => kind === WRITE)) {
      if (this.#session === null) {
        const opening = new Attempt(request.openSession());
        await this.#run([opening]);
        if (opening.outcome instanceof CacheError) return opening.outcome;
        [this.#session, this.#sequence] = [opening.outcome, 0n];
      }
      this.#sequence += 1n;
      attempt.request = request.stamped(this.#session, this.#sequence, attempt.asked);
    }
    return null;
  }

  /**
   * Tries each address once, until every request is settled; that of an old connection once more at the end,
   * because the node may have restarted.
   */
  async #run(attempts) {
    for (let left = this.#addresses.length + (this.#connection === null ? 0 : 1); left > 0; left -= 1) {
      try {
        await this.#connect();
        await this.#exchange(unsettled(attempts));
      } catch (error) {
        const why = `${this.#addresses[this.#at]}: ${error.message}`;
        unsettled(attempts).forEach((attempt) => attempt.unreached(why));
      }
      if (unsettled(attempts).length === 0) return;
      this.close();
      this.#at = (this.#at + 1) % this.#addresses.length;
    }
  }

  async #connect() {
    if (this.#connection?.isClean()) return;
    this.close();
    this.#connection = await Connection.open(this.#addresses[this.#at], this.#timeoutMs);
  }

  async #exchange(sent) {
    const connection = this.#connection;
    connection.send(sent.map((attempt) => attempt.request));
    let why = null;
    for (const attempt of sent) {
      try {
        if (why === null) attempt.answered(await connection.receive(attempt.request));
      } catch (error) {
        why = `${this.#addresses[this.#at]}: ${error.message}`;
        this.close();
      }
      if (why !== null) attempt.lost(why);
    }
  }
}

const CALLS = ['ping', 'get', 'set', 'delete', 'exists', 'expire', 'persist', 'ttl', 'incr', 'mget', 'mset', 'count',
  'clear', 'batch', 'join', 'leave', 'members', 'transfer', 'status'];
for (const name of CALLS) {
  Client.prototype[name] = async function call(...args) { return this.call(request[name](...args)); };
}
