// connect-redis: the sessions of express-session, over node-redis.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { promisify } from "node:util";
import { RedisStore } from "connect-redis";
import session from "express-session";
import { createClient } from "redis";

export const LIBRARY = "connect-redis";

async function storeAt(host, port) {
  const client = createClient({ socket: { host, port }, database: 14 });
  // Without a listener the first cut connection would end the process.
  client.on("error", () => {});
  await client.connect();
  return { client, store: new RedisStore({ client, prefix: "sess:", ttl: 100 }) };
}

// Counts the visits of a session; /leave ends it.
async function site(store) {
  const sessions = session({ store, secret: "not one", resave: false, saveUninitialized: false });
  const server = createServer((request, response) => {
    sessions(request, response, () => {
      if (request.url === "/leave") {
        request.session.destroy(() => response.end("left"));
        return;
      }
      request.session.visits = (request.session.visits ?? 0) + 1;
      response.end(String(request.session.visits));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

export async function check(host, port) {
  const { client, store } = await storeAt(host, port);
  await client.flushDb();
  const server = await site(store);
  const visitor = () => {
    let cookie = "";
    return async (path) => {
      const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: { cookie } });
      cookie = response.headers.get("set-cookie")?.split(";")[0] ?? cookie;
      return response.text();
    };
  };
  const [one, other] = [visitor(), visitor()];
  assert.deepEqual([await one("/"), await one("/"), await one("/")], ["1", "2", "3"]);
  assert.equal(await other("/"), "1");
  assert.equal(await promisify(store.length.bind(store))(), 2);
  assert.equal((await promisify(store.ids.bind(store))()).length, 2);
  const all = await promisify(store.all.bind(store))();
  assert.deepEqual(all.map((found) => found.visits).sort(), [1, 3]);
  assert.ok((await client.ttl((await client.keys("sess:*"))[0])) > 90);
  assert.equal(await one("/leave"), "left");
  assert.equal(await one("/"), "1");
  assert.equal(await other("/"), "2");
  await promisify(store.clear.bind(store))();
  assert.equal(await client.dbSize(), 0);
  server.closeAllConnections();
  server.close();
  await client.close();
}

export async function connect(host, port) {
  const { client, store } = await storeAt(host, port);
  const cookie = { originalMaxAge: null };
  return {
    put: (key, value) => promisify(store.set.bind(store))(key, { cookie, value }),
    get: async (key) => (await promisify(store.get.bind(store))(key))?.value,
    close: () => client.close(),
  };
}
