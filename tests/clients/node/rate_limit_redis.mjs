// rate-limit-redis 4 to 6, under express-rate-limit: requests of a site within a
// window, counted by a script that is another one in each of these versions.

import assert from "node:assert/strict";
import { once } from "node:events";
import express from "express";
import { rateLimit } from "express-rate-limit";
import { RedisStore } from "rate-limit-redis";
import { RedisStore as RedisStore4 } from "rate-limit-redis-4.2";
import { RedisStore as RedisStore5 } from "rate-limit-redis-5";
import { createClient } from "redis";

export const LIBRARY = "rate-limit-redis";
const WINDOW_MS = 100_000;

async function clientAt(host, port) {
  const client = createClient({ socket: { host, port }, database: 12 });
  // Without a listener the first cut connection would end the process.
  client.on("error", () => {});
  return client.connect();
}

const storeOf = (Store, client, options) =>
  new Store({ ...options, prefix: "limit:", sendCommand: (...args) => client.sendCommand(args) });

export async function check(host, port) {
  const client = await clientAt(host, port);
  for (const Store of [RedisStore4, RedisStore5, RedisStore]) {
    await client.flushDb();
    await checkSite(client, Store);
    await checkStore(client, Store);
  }
  for (const Store of [RedisStore4, RedisStore5]) await checkRenewal(client, Store);
  await client.close();
}

// Two requests of each visitor are welcome.
async function checkSite(client, Store) {
  const site = express();
  const store = storeOf(Store, client);
  const keyGenerator = (request) => request.get("visitor");
  site.use(rateLimit({ windowMs: WINDOW_MS, limit: 2, store, keyGenerator, standardHeaders: "draft-6", legacyHeaders: false }));
  site.get("/", (request, response) => response.send("welcome"));
  const server = site.listen(0, "127.0.0.1");
  await once(server, "listening");
  const visit = async (visitor) => {
    const response = await fetch(`http://127.0.0.1:${server.address().port}/`, { headers: { visitor } });
    await response.text();
    return [response.status, response.headers.get("ratelimit-remaining")];
  };
  assert.deepEqual(await visit("one"), [200, "1"]);
  assert.deepEqual(await visit("other"), [200, "1"]);
  assert.deepEqual(await visit("one"), [200, "0"]);
  assert.deepEqual(await visit("one"), [429, "0"]);
  await store.resetKey("one");
  assert.deepEqual(await visit("one"), [200, "1"]);
  server.closeAllConnections();
  server.close();
}

async function checkStore(client, Store) {
  const store = storeOf(Store, client);
  store.init({ windowMs: WINDOW_MS });
  const left = async (hits) => (await hits).resetTime - Date.now();
  assert.equal((await store.increment("user")).totalHits, 1);
  // The window goes on, and a hit may be taken back.
  await client.pExpire("limit:user", 50_000);
  const again = await store.increment("user");
  assert.equal(again.totalHits, 2);
  assert.ok((await left(again)) <= 50_000 && (await left(store.get("user"))) > 30_000);
  await store.decrement("user");
  assert.equal((await store.get("user")).totalHits, 1);
  await store.resetKey("user");
  assert.equal((await store.increment("user")).totalHits, 1);
  // What is no counter is left as it is.
  await client.set("limit:text", "text", { expiration: { type: "PX", value: 50_000 } });
  await assert.rejects(store.increment("text"), /not an integer/);
  assert.ok((await client.pTTL("limit:text")) <= 50_000);
}

// Each hit begins the window again.
async function checkRenewal(client, Store) {
  const store = storeOf(Store, client, { resetExpiryOnChange: true });
  store.init({ windowMs: WINDOW_MS });
  await store.increment("renewed");
  await client.pExpire("limit:renewed", 1000);
  await store.increment("renewed");
  assert.ok((await client.pTTL("limit:renewed")) > 50_000);
  await store.resetKey("renewed");
}

// A hit of its own for each write.
export async function connect(host, port) {
  const client = await clientAt(host, port);
  const [store, values] = [storeOf(RedisStore, client), new Map()];
  store.init({ windowMs: WINDOW_MS });
  return {
    put: async (key, value) => {
      await store.increment(key);
      values.set(key, value);
    },
    get: async (key) => ((await store.get(key)).totalHits >= 1 ? values.get(key) : undefined),
    close: () => client.close(),
  };
}
