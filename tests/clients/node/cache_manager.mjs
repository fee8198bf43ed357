// cache-manager, over Keyv and @keyv/redis.

import assert from "node:assert/strict";
import KeyvRedis, { createClient } from "@keyv/redis";
import { createCache } from "cache-manager";
import { Keyv } from "keyv";

export const LIBRARY = "cache-manager";

function cacheAt(host, port) {
  const client = createClient({ socket: { host, port }, database: 13 });
  const store = new KeyvRedis(client, { namespace: "manager", throwOnErrors: true });
  const keyv = new Keyv({ store, namespace: "manager", useKeyPrefix: false, throwOnErrors: true });
  // Without a listener the first cut connection would end the process.
  keyv.on("error", () => {});
  return createCache({ stores: [keyv], ttl: 100_000 });
}

export async function check(host, port) {
  const cache = cacheAt(host, port);
  await cache.clear();
  await cache.set("user", { name: "Åsa", ids: [1, 2] });
  assert.deepEqual(await cache.get("user"), { name: "Åsa", ids: [1, 2] });
  assert.equal(await cache.get("missing"), undefined);
  assert.ok((await cache.ttl("user")) > Date.now());
  await cache.mset([{ key: "a", value: 1 }, { key: "b", value: "two" }]);
  assert.deepEqual(await cache.mget(["a", "missing", "b"]), [1, undefined, "two"]);
  let calls = 0;
  const make = async () => `made ${++calls}`;
  assert.equal(await cache.wrap("lazy", make), "made 1");
  assert.equal(await cache.wrap("lazy", make), "made 1");
  await cache.del("lazy");
  assert.equal(await cache.wrap("lazy", make), "made 2");
  await cache.mdel(["a", "b"]);
  assert.equal(await cache.get("a"), undefined);
  await cache.set("soon", "x", 1);
  while ((await cache.get("soon")) !== undefined);
  await cache.clear();
  assert.equal(await cache.get("user"), undefined);
  await cache.disconnect();
}

export async function connect(host, port) {
  const cache = cacheAt(host, port);
  return {
    put: (key, value) => cache.set(key, value),
    get: (key) => cache.get(key),
    close: () => cache.disconnect(),
  };
}
