// node-redis, with both versions of the protocol.

import assert from "node:assert/strict";
import { RESP_TYPES, WatchError, createClient } from "redis";

export const LIBRARY = "redis";

async function connected(host, port, options = {}) {
  const client = createClient({ socket: { host, port }, database: 11, name: "a-client", ...options });
  // Without a listener the first cut connection would end the process.
  client.on("error", () => {});
  return client.connect();
}

export async function check(host, port) {
  for (const RESP of [2, 3]) {
    const client = await connected(host, port, { RESP });
    const other = await connected(host, port, { RESP });
    await client.flushDb();
    await strings(client);
    await deadlines(client);
    await transactions(client, other);
    await scans(client);
    await reconnects(client);
    await client.flushDb();
    await client.close();
    await other.close();
  }
}

async function strings(client) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.clientGetName(), "a-client");
  assert.equal(await client.set("text", "värde"), "OK");
  assert.equal(await client.get("text"), "värde");
  assert.equal(await client.get("missing"), null);
  const bytes = Buffer.from(Array.from({ length: 1 << 20 }, (_, n) => n % 256));
  const binary = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.equal(await client.set(Buffer.from([0, 13, 10, 255]), bytes), "OK");
  assert.deepEqual(await binary.get(Buffer.from([0, 13, 10, 255])), bytes);
  assert.equal(await client.set("text", "x", { condition: "NX" }), null);
  assert.equal(await client.set("text", "x", { GET: true }), "värde");
  assert.equal(await client.mSet({ a: "1", b: "2" }), "OK");
  assert.deepEqual(await client.mGet(["a", "missing", "b"]), ["1", null, "2"]);
  assert.equal(await client.incr("number"), 1);
  assert.equal(await client.incrBy("number", 9), 10);
  assert.equal(Number(await client.incrByFloat("float", 0.5)), 0.5);
  assert.equal(await client.append("text", "yz"), 3);
  assert.equal(await client.exists(["a", "b", "missing"]), 2);
  assert.equal(await client.del(["a", "b", "missing"]), 2);
  assert.equal(await client.getDel("text"), "xyz");
  assert.equal(await client.type("number"), "string");
  await assert.rejects(client.sendCommand(["NONSENSE"]), /unknown command/);
  // Sent together, as everything is that is not waited for.
  const sums = await Promise.all(Array.from({ length: 1000 }, () => client.incr("sum")));
  assert.deepEqual(sums, Array.from({ length: 1000 }, (_, n) => n + 1));
}

async function deadlines(client) {
  await client.set("soon", "x", { expiration: { type: "EX", value: 100 } });
  assert.ok((await client.ttl("soon")) > 90);
  assert.equal(await client.persist("soon"), 1);
  assert.equal(await client.ttl("soon"), -1);
  assert.equal(await client.expire("soon", 100), 1);
  assert.equal(await client.expire("missing", 100), 0);
  assert.equal(await client.getEx("soon", { type: "PX", value: 50_000 }), "x");
  assert.ok((await client.pTTL("soon")) <= 50_000);
  await client.setEx("soon", 100, "y");
  await client.pSetEx("soon", 1, "z");
  while ((await client.get("soon")) !== null);
}

async function transactions(client, other) {
  assert.deepEqual(await client.multi().set("balance", 10).incrBy("balance", 5).get("balance").exec(), ["OK", 15, "15"]);
  await client.watch("balance");
  await other.incr("balance");
  await assert.rejects(client.multi().set("balance", 0).exec(), WatchError);
  await client.watch("balance");
  const balance = Number(await client.get("balance"));
  assert.deepEqual(await client.multi().set("balance", 2 * balance).exec(), ["OK"]);
  assert.equal(await other.get("balance"), "32");
}

async function scans(client) {
  await client.flushDb();
  const names = Array.from({ length: 500 }, (_, n) => `scan:${n}`).sort();
  await client.mSet(names.map((name) => [name, "x"]));
  await client.set("other", "y");
  const found = [];
  for await (const keys of client.scanIterator({ MATCH: "scan:*", COUNT: 50 })) found.push(...keys);
  assert.deepEqual(found.sort(), names);
  assert.equal(await client.dbSize(), 501);
  assert.deepEqual(await client.keys("oth*"), ["other"]);
}

// The node closes the connection.
async function reconnects(client) {
  await client.set("kept", "yes");
  const again = new Promise((resolve) => client.once("ready", resolve));
  await client.sendCommand(["QUIT"]);
  await again;
  assert.equal(await client.get("kept"), "yes");
  assert.equal(await client.clientGetName(), "a-client");
}

export async function connect(host, port) {
  const client = await connected(host, port);
  const put = async (key, value) => assert.equal(await client.set(key, value), "OK");
  return { put, get: (key) => client.get(key), close: () => client.close() };
}
