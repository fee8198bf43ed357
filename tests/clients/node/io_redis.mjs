// ioredis, which asks with INFO whether a node is ready.

import assert from "node:assert/strict";
import { Redis } from "ioredis";

export const LIBRARY = "ioredis";

function client(host, port) {
  const client = new Redis({ host, port, db: 12, connectionName: "a-client" });
  // Without a listener it prints what it retries.
  client.on("error", () => {});
  return client;
}

export async function check(host, port) {
  const redis = client(host, port);
  const other = client(host, port);
  await redis.flushdb();
  await strings(redis);
  await transactions(redis, other);
  await scans(redis);
  // The network cuts the connection.
  await redis.set("kept", "yes");
  redis.stream.destroy();
  assert.equal(await redis.get("kept"), "yes");
  await redis.flushdb();
  await Promise.all([redis.quit(), other.quit()]);
}

async function strings(redis) {
  assert.equal(await redis.client("GETNAME"), "a-client");
  assert.equal(await redis.set("text", "värde", "EX", 100), "OK");
  assert.equal(await redis.get("text"), "värde");
  assert.ok((await redis.ttl("text")) > 90);
  const bytes = Buffer.from(Array.from({ length: 1 << 20 }, (_, n) => n % 256));
  await redis.set("bytes", bytes);
  assert.deepEqual(await redis.getBuffer("bytes"), bytes);
  assert.equal(await redis.set("text", "x", "NX"), null);
  assert.equal(await redis.mset({ a: 1, b: 2 }), "OK");
  assert.deepEqual(await redis.mget("a", "missing", "b"), ["1", null, "2"]);
  assert.equal(await redis.incrby("number", 5), 5);
  assert.equal(await redis.del("a", "b", "missing"), 2);
  assert.deepEqual(await redis.pipeline().set("p", 1).incr("p").get("p").exec(), [[null, "OK"], [null, 2], [null, "2"]]);
  await assert.rejects(redis.call("NONSENSE"), /unknown command/);
}

async function transactions(redis, other) {
  assert.deepEqual(await redis.multi().set("balance", 10).incr("balance").exec(), [[null, "OK"], [null, 11]]);
  await redis.watch("balance");
  await other.incr("balance");
  assert.equal(await redis.multi().set("balance", 0).exec(), null);
  assert.equal(await redis.get("balance"), "12");
}

async function scans(redis) {
  await redis.flushdb();
  const names = Array.from({ length: 500 }, (_, n) => `scan:${n}`).sort();
  await redis.mset(names.flatMap((name) => [name, "x"]));
  const found = [];
  for await (const keys of redis.scanStream({ match: "scan:*", count: 50 })) found.push(...keys);
  assert.deepEqual(found.sort(), names);
}

export async function connect(host, port) {
  const redis = client(host, port);
  const put = async (key, value) => assert.equal(await redis.set(key, value), "OK");
  return { put, get: (key) => redis.get(key), close: () => redis.quit() };
}
