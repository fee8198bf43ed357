// Tests of the Node client: the golden bytes, failing over, and a node if there is one.
//
//     node selftest.mjs                      # needs nothing
//     node selftest.mjs --live HOST:PORT     # and then a running node, which it writes to
//
// Every line of binary_golden.txt is looked up here by what it says, and every entry
// here has to be in the file, so neither can change without the other.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, NO_DEADLINE, OutcomeUnknown, Refused, Unreachable, request as ask } from './raftcache.mjs';

const GOLDEN = new URL('../../../src/protocol/binary_golden.txt', import.meta.url);

const bothSet = ask.mset([['a', '1'], ['b', '2']]);
const everything = [
  ask.get('a'), ask.exists('a'), ask.ttl('a'), ask.count(), ask.set('a', '1'), ask.delete('a'),
  ask.expire('a', { ttlMs: 1 }), ask.persist('a'), ask.incr('a'), ask.clear(null),
];
const guards = [['a', 9], [{ name: 'b', db: 1 }, 0]];

const REQUESTS = {
  'classic-set | SET K_0=V_0, no ttl': ask.classicSet('K_0', 'V_0'),
  'classic-set | SET Foo=Bar for 2 seconds': ask.classicSet('Foo', 'Bar', 2),
  'classic-set | SET of an empty key to an empty value': ask.classicSet('', ''),
  'classic-get | GET K_0': ask.classicGet('K_0'),
  'classic-join | JOIN node2 at 127.0.0.1:1112': ask.classicJoin('node2', '127.0.0.1:1112'),
  'ping | PING': ask.ping(),
  'get | GET K_0, linearizable': ask.get('K_0'),
  'get | GET K_0 of database 15, stale': ask.get({ name: 'K_0', db: 15 }, { stale: true }),
  'set | SET K_0=V_0': ask.set('K_0', 'V_0'),
  'set | SET K_0 to nothing, keeping its deadline, if absent': ask.set('K_0', '', { keepTtl: true, nx: true }),
  'set | SET K_0=V for 1500 ms, if present': ask.set('K_0', 'V', { ttlMs: 1500, xx: true }),
  'set | SET K_0=V until 2^40 ms since 1970, if it holds U': ask.set('K_0', 'V', { atMs: 2 ** 40, ifValue: 'U' }),
  'set | SET K_0=V, if its version is 258': ask.set('K_0', 'V', { ifVersion: 258 }),
  'del | DEL K_0': ask.delete('K_0'),
  'exists | EXISTS K_0, linearizable': ask.exists('K_0'),
  'expire | EXPIRE K_0 in 1500 ms': ask.expire('K_0', { ttlMs: 1500 }),
  'persist | PERSIST K_0': ask.persist('K_0'),
  'ttl | TTL K_0, linearizable': ask.ttl('K_0'),
  'incrby | INCRBY K_0 -2': ask.incr('K_0', -2),
  'mget | MGET a b, linearizable': ask.mget(['a', 'b']),
  'mset | MSET a=1 b=2': bothSet,
  'count | COUNT of database 0, linearizable': ask.count(),
  'clear | CLEAR database 3': ask.clear(3),
  'clear | CLEAR all databases': ask.clear(null),
  'batch | BATCH if a has version 9 and b of database 1 is absent: SET a=1, GET b':
    ask.batch([ask.set('a', '1'), ask.get('b')], guards),
  'batch-all | BATCH: GET EXISTS TTL of a, COUNT, SET a=1, DEL EXPIRE (1 ms) PERSIST INCRBY (1) a, CLEAR all':
    ask.batch(everything),
  'session | SESSION': ask.openSession(),
  'stamped-set | STAMPED session 7 sequence 1: SET K_0=V_0': ask.stamped(7, 1, ask.set('K_0', 'V_0')),
  'stamped-mset | STAMPED session 7 sequence 1: MSET a=1 b=2': ask.stamped(7, 1, bothSet),
  'join | JOIN node2 at 127.0.0.1:1112': ask.join('node2', '127.0.0.1:1112'),
  'leave | LEAVE node2': ask.leave('node2'),
  'members | MEMBERS': ask.members(),
  'transfer | TRANSFER to node2': ask.transfer('node2'),
  'transfer | TRANSFER to anyone': ask.transfer(),
  'status | STATUS': ask.status(),
};

const set = (version) => ({ stored: true, version });
const item = (value, version) => ({ version, value: Buffer.from(value) });
const member = (name, node, n, voter, leader) =>
  ({ name, node, peerAddress: `h:400${n}`, clientAddress: `h:300${n}`, voter, leader });
const both = [member('n1', 1n, 1, true, true), member('n2', 2n ** 128n - 1n, 2, false, false)];
const noReason = new OutcomeUnknown('the classic reply gives no reason');
const notAnInteger = new Refused('not an integer', 'value is not an integer or out of range');

const REPLIES = {
  'classic-set | done': undefined,
  'classic-set | failed': noReason,
  'classic-get | V_0': Buffer.from('V_0'),
  'classic-get | no such key': null,
  'classic-get | failed': noReason,
  'classic-join | done': undefined,
  'classic-join | failed': noReason,
  'ping | done': undefined,
  'get | version 7, V_0': item('V_0', 7n),
  'get | no such key': null,
  'set | version 7': set(7n),
  'set | condition does not hold, version 6': { stored: false, version: 6n },
  'set | invalid expiry': new Refused('invalid expiry', 'invalid expire time'),
  'set | outcome unknown': new OutcomeUnknown('why'),
  'del | removed': true,
  'exists | absent': false,
  'expire | deadline set': true,
  'persist | had no deadline': false,
  'ttl | 1500 ms left': 1500n,
  'ttl | no deadline': NO_DEADLINE,
  'ttl | no such key': null,
  'incrby | -2': -2n,
  'incrby | not an integer': notAnInteger,
  'incrby | overflow': new Refused('overflow', 'increment or decrement would overflow'),
  'mget | version 7 1, no such key': [item('1', 7n), null],
  'mset | version 8, version 8': [set(8n), set(8n)],
  'count | 258 keys': 258n,
  'clear | done': undefined,
  'batch | version 8; version 7 2': [set(8n), item('2', 7n)],
  'batch | a guard does not hold': new Refused('guard failed', 'a guard does not hold'),
  'batch-all | version 7 1; 1; no deadline; 2; version 8; 1; 0; 0; not an integer; done':
    [item('1', 7n), true, NO_DEADLINE, 2n, set(8n), true, false, false, notAnInteger, undefined],
  'session | session 7': 7n,
  'stamped-set | version 7': set(7n),
  'stamped-mset | version 8, version 8': [set(8n), set(8n)],
  'join | done': undefined,
  'leave | refused': new Refused('refused', 'why'),
  'members | n1 (node 1, h:4001, h:3001, voter, leader), n2 (node 2^128-1, h:4002, h:3002)': both,
  'transfer | done': undefined,
  ['status | n1, node 1, cluster 2, leader, led by n1, term 3, last 14, durable 13, commit 12, applied 11, log 2^20, '
    + 'keys 10, memory 4096 of 2^30, hash 2^64-1, log time 1700000000000, offset -5, the two members, "disk is slow"']: {
    name: 'n1', node: 1n, cluster: 2n, role: 'leader', leader: 'n1', term: 3n, last: 14n, durable: 13n, commit: 12n,
    applied: 11n, logBytes: 2n ** 20n, keys: 10n, memoryBytes: 4096n, memoryLimitBytes: 2n ** 30n,
    stateHash: 2n ** 64n - 1n, logTimeMs: 1_700_000_000_000n, clockOffsetMs: -5n, members: both,
    warnings: ['disk is slow'],
  },
};
for (const kind of ['invalid', 'no leader', 'out of memory', 'disk full', 'busy', 'session expired', 'refused', 'not serving']) {
  REPLIES[`set | ${kind}`] = new Refused(kind, 'why');
}

function golden() {
  const found = { request: [], reply: [] };
  for (const line of fs.readFileSync(GOLDEN, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const [kind, name, hex, text] = line.split('|').map((column) => column.trim());
    const [bytes, says] = [Buffer.from(hex, 'hex'), `${name} | ${text}`];
    found[kind].push(says);
    if (kind === 'request') {
      assert.equal(REQUESTS[says]?.encode().toString('hex'), hex, line);
      continue;
    }
    const [, asked] = Object.entries(REQUESTS).find(([key]) => key.startsWith(`${name} | `));
    for (let length = 0; length < bytes.length; length += 1) {
      assert.equal(asked.decode(bytes.subarray(0, length)), null, `${length} bytes of ${line}`);
    }
    const decoded = asked.decode(Buffer.concat([bytes, Buffer.from('behind')]));
    assert.deepEqual(decoded, { outcome: REPLIES[says], length: bytes.length }, line);
  }
  assert.deepEqual(found.request, Object.keys(REQUESTS));
  assert.deepEqual(found.reply.sort(), Object.keys(REPLIES).sort());
  return `${found.request.length} requests, ${found.reply.length} replies`;
}

// A node that answers one request after the other with these bytes; null hangs up.
async function fake(...replies) {
  const seen = [];
  const server = net.createServer((socket) => {
    socket.on('data', (bytes) => {
      seen.push(bytes.toString('hex'));
      const reply = replies.shift();
      if (reply === null) socket.destroy();
      else if (reply !== undefined) socket.write(Buffer.from(reply, 'hex'));
    });
    socket.on('error', () => {});
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  server.unref();
  return { address: `127.0.0.1:${server.address().port}`, seen, server };
}

// An address where nobody listens.
async function nobody() {
  const { address, server } = await fake();
  await new Promise((resolve) => { server.close(resolve); });
  return address;
}

const STORED = '01080000000700000000000000';
const SESSION = '01080000000500000000000000';
const NO_LEADER = '0403000000776879';
const EXPIRED = '0a03000000776879';

async function failover() {
  const use = async (nodes, options, run) => {
    const addresses = await Promise.all(nodes.map(async (node) => (await node).address ?? node));
    const cache = new Client(addresses, { timeoutMs: 2000, ...options });
    try {
      return await run(cache);
    } finally {
      cache.close();
    }
  };
  const write = (cache) => cache.set('a', '1');
  const session = { session: true };

  // A read whose reply is lost goes to the next address.
  assert.equal(await use([fake(null), fake('0300000000')], {}, (cache) => cache.get('a')), null);
  // A write does not: it may have taken effect.
  let other = await fake(STORED);
  await assert.rejects(use([fake(null), other], {}, write), OutcomeUnknown);
  assert.deepEqual(other.seen, []);
  // With session and sequence it does, with the same ones.
  const lost = await fake(SESSION, null);
  other = await fake(STORED);
  assert.deepEqual(await use([lost, other], session, write), set(7n));
  assert.deepEqual(other.seen, lost.seen.slice(1));
  // A session that has expired is replaced; surely nothing was executed.
  assert.deepEqual(await use([fake(SESSION, EXPIRED, SESSION, STORED)], session, write), set(7n));
  // But not if an attempt before may have been executed.
  await assert.rejects(use([fake(SESSION, null), fake(EXPIRED)], session, write), OutcomeUnknown);
  // Nothing was sent: the next address.
  assert.deepEqual(await use([await nobody(), fake(STORED)], {}, write), set(7n));
  // Surely not applied, but a write without a stamp is not repeated by itself.
  other = await fake(STORED);
  await assert.rejects(use([fake(NO_LEADER), other], {}, write), { name: 'Refused', kind: 'no leader' });
  assert.deepEqual(other.seen, []);
  await assert.rejects(use([await nobody(), await nobody()], {}, write), Unreachable);
  // What breaks a limit is refused before it is sent.
  assert.throws(() => ask.get('k'.repeat(65537)), { name: 'Refused', kind: 'invalid' });
  // A node that does not answer.
  await assert.rejects(use([fake()], { timeoutMs: 100 }, write), OutcomeUnknown);
  await assert.rejects(use([fake()], { timeoutMs: 100 }, (cache) => cache.get('a')), Unreachable);
}

async function live(address) {
  const [a, b, n] = ['node:a', 'node:b', 'node:n'];
  const cache = new Client(address.split(','), { session: true });
  await cache.ping();
  await Promise.all([a, b, n].map((key) => cache.delete(key)));
  assert.equal(await cache.get(a), null);
  const { version } = await cache.set(a, Buffer.from([0, 255]));
  assert.deepEqual(await cache.get(a), item([0, 255], version));
  assert.notEqual(await cache.get(a, { stale: true }), null);
  assert.equal(await cache.ttl(a), NO_DEADLINE);
  assert.ok((await cache.set(a, '1', { ttlMs: 60_000 })).stored);
  const left = await cache.ttl(a);
  assert.ok(left > 0n && left <= 60_000n, `${left} ms`);
  assert.deepEqual([await cache.persist(a), await cache.persist(a)], [true, false]);
  assert.deepEqual([await cache.expire(a, { ttlMs: 60_000 }), await cache.expire(b, { ttlMs: 1 })], [true, false]);
  assert.equal((await cache.set(a, '2', { nx: true })).stored, false);
  assert.equal((await cache.set(b, '2', { xx: true })).stored, false);
  // It lives shortly, and then never again.
  await cache.set(b, 'short', { ttlMs: 50 });
  await sleep(200);
  assert.deepEqual([await cache.exists(b), await cache.ttl(b)], [false, null]);
  assert.deepEqual([await cache.incr(n), await cache.incr(n, -3)], [1n, -2n]);
  await cache.set(b, 'no number');
  await assert.rejects(cache.incr(b), { kind: 'not an integer' });
  // Compare and set, by value and by version.
  assert.equal((await cache.set(a, '3', { ifValue: '2' })).stored, false);
  assert.equal((await cache.set(a, '3', { ifValue: '1' })).stored, true);
  const seen = await cache.get(a);
  assert.equal((await cache.set(a, '4', { ifVersion: seen.version })).stored, true);
  assert.equal((await cache.set(a, '5', { ifVersion: seen.version })).stored, false);
  const [x, y] = await cache.mset([[a, 'x'], [b, 'y']]);
  assert.deepEqual(await cache.mget([a, 'node:none', b]), [item('x', x.version), null, item('y', y.version)]);
  const guard = [[a, x.version]];
  const answers = await cache.batch([ask.set(a, 'z'), ask.incr(a), ask.get(b)], guard);
  assert.equal(answers[1].kind, 'not an integer');
  await assert.rejects(cache.batch([ask.delete(a)], guard), { kind: 'guard failed' });
  // Many at once, in order, asked for in two ways.
  await cache.delete(n);
  const sums = await cache.pipeline(Array(1000).fill(ask.incr(n)));
  assert.deepEqual(sums, sums.map((_, i) => BigInt(i + 1)));
  assert.deepEqual(await Promise.all([cache.incr(n), cache.incr(n)]), [1001n, 1002n]);
  const big = Buffer.alloc(4 << 20, 'v');
  const values = await cache.pipeline([ask.set(a, big), ...Array(4).fill(ask.get(a)), ask.delete(a)]);
  assert.ok(values.slice(1, -1).every(({ value }) => value.equals(big)));
  // A write that is sent twice takes effect once.
  const session = await cache.call(ask.openSession());
  const add = ask.stamped(session, 1, ask.incr(n));
  assert.deepEqual(await cache.pipeline([add, add, ask.stamped(session, 2, ask.incr(n))]), [1003n, 1003n, 1004n]);
  await assert.rejects(cache.call(ask.stamped(2n ** 63n, 1, ask.incr(n))), { kind: 'session expired' });
  // The classic three.
  assert.deepEqual(await cache.pipeline([ask.classicSet(a, 'c', 60), ask.classicGet(a)]), [undefined, Buffer.from('c')]);
  // The cluster.
  const [members, status] = [await cache.members(), await cache.status()];
  assert.ok(members.some(({ name, voter }) => name === status.name && voter));
  assert.deepEqual(status.members, members);
  assert.ok(status.role !== undefined && status.commit <= status.last);
  await assert.rejects(cache.leave('nobody'), { kind: 'refused' });
  await assert.rejects(cache.transfer('nobody'), { kind: 'refused' });
  await assert.rejects(cache.join('ghost', await nobody()), { kind: 'refused' });
  assert.ok(await cache.count() >= 2n);
  await Promise.all([a, b, n].map((key) => cache.delete(key)));
  cache.close();
}

console.log('golden bytes:', golden());
await failover();
console.log('failing over: as it should');
if (process.argv[2] === '--live') {
  await live(process.argv[3]);
  console.log('live: all well at', process.argv[3]);
}
// The fakes still listen.
process.exit(0);
