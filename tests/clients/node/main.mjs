// Runs one client: main.mjs MODULE check HOST PORT, or MODULE failover HOST PORT LEADER.
//
// A module exports what those of Python do (main.py), but all of it is async, and
// connect returns close, too: { put, get, close }.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

// How long a cluster may take to answer again: only a broken one does.
const SECONDS = 30;
const WRITES = 100;

// Until it succeeds.
async function patiently(call) {
  const deadline = performance.now() + 1000 * SECONDS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(10);
    }
  }
}

// Kills the leader's process while writing through another node.
async function failover(client, host, port, leader) {
  const { put, get, close } = await client.connect(host, Number(port));
  const written = Array.from({ length: 2 * WRITES }, (_, n) => [`failover:${process.pid}:${n}`, `value ${n}`]);
  let answers;
  for (const [n, [key, value]] of written.entries()) {
    const began = performance.now();
    if (n === WRITES) process.kill(Number(leader), "SIGKILL");
    await patiently(() => put(key, value));
    if (n === WRITES) answers = (performance.now() - began) / 1000;
  }
  const lost = [];
  for (const [key, value] of written) {
    if ((await patiently(() => get(key))) !== value) lost.push(key);
  }
  if (lost.length > 0) throw new Error(`acknowledged, and not there: ${lost}`);
  await close();
  console.log(`answers again after ${answers.toFixed(2)} s, ${written.length} writes are there`);
}

async function check(client, host, port) {
  await client.check(host, Number(port));
  const manifest = new URL(`node_modules/${client.LIBRARY}/package.json`, import.meta.url);
  console.log(client.LIBRARY, JSON.parse(readFileSync(manifest, "utf8")).version);
}

const [module, job, ...rest] = process.argv.slice(2);
await { check, failover }[job](await import(`./${module}.mjs`), ...rest);
