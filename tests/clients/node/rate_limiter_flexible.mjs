// rate-limiter-flexible: points of a window, counted by a script, over ioredis and
// over node-redis.

import assert from "node:assert/strict";
import { Redis } from "ioredis";
import { RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";
import { createClient } from "redis";

export const LIBRARY = "rate-limiter-flexible";
const DATABASE = 11;

function overIoredis(host, port) {
  const client = new Redis({ host, port, db: DATABASE });
  // Without a listener the first cut connection would be told on the console.
  client.on("error", () => {});
  return client;
}

async function overNodeRedis(host, port) {
  const client = createClient({ socket: { host, port }, database: DATABASE });
  client.on("error", () => {});
  return client.connect();
}

export async function check(host, port) {
  const [one, other] = [overIoredis(host, port), await overNodeRedis(host, port)];
  await one.flushdb();
  await checkPoints(one, { storeClient: one });
  await checkPoints(one, { storeClient: other, useRedisPackage: true });
  await one.quit();
  await other.close();
}

async function checkPoints(client, store) {
  const limiter = new RateLimiterRedis({ ...store, keyPrefix: "points", points: 5, duration: 100 });
  assert.equal(await limiter.get("user"), null);
  const first = await limiter.consume("user", 3);
  assert.deepEqual([first.consumedPoints, first.remainingPoints, first.isFirstInDuration], [3, 2, true]);
  assert.ok(first.msBeforeNext > 90_000 && first.msBeforeNext <= 100_000);
  // What follows does not begin the window again.
  await client.pexpire("points:user", 50_000);
  const second = await limiter.consume("user", 2);
  assert.deepEqual([second.remainingPoints, second.isFirstInDuration], [0, false]);
  assert.ok(second.msBeforeNext > 40_000 && second.msBeforeNext <= 50_000);
  await assert.rejects(limiter.consume("user"), (refused) => {
    assert.ok(refused instanceof RateLimiterRes, refused);
    return refused.consumedPoints === 6;
  });
  assert.equal((await limiter.reward("user", 4)).consumedPoints, 2);
  assert.equal((await limiter.penalty("user")).consumedPoints, 3);
  assert.equal((await limiter.get("user")).consumedPoints, 3);
  // A window without an end gets one.
  await client.persist("points:user");
  assert.ok((await limiter.consume("user")).msBeforeNext > 90_000);
  await limiter.block("user", 200);
  await assert.rejects(limiter.consume("user"), (refused) => refused.msBeforeNext > 190_000);
  assert.equal(await limiter.delete("user"), true);
  assert.equal(await limiter.get("user"), null);
  // What is no counter is left as it is.
  await client.set("points:text", "text");
  await assert.rejects(limiter.consume("text"), /not an integer/);
  assert.equal(await client.pttl("points:text"), -1);
}

// A point of its own for each write.
export async function connect(host, port) {
  const client = overIoredis(host, port);
  const limiter = new RateLimiterRedis({ storeClient: client, points: 1000, duration: 1000 });
  const values = new Map();
  return {
    put: async (key, value) => {
      await limiter.consume(key);
      values.set(key, value);
    },
    get: async (key) => ((await limiter.get(key))?.consumedPoints >= 1 ? values.get(key) : undefined),
    close: () => client.quit(),
  };
}
