"""Runs one client: main.py MODULE check HOST PORT, or MODULE failover HOST PORT LEADER.

A module has:

- LIBRARY, whose version is told,
- check(host, port): does what its users do, and asserts what comes of it,
- connect(host, port): returns put(key, value) and get(key), of texts. Either
  raises where it could not, and put returns only if the write was acknowledged.
"""

import importlib
import importlib.metadata
import os
import signal
import sys
import time

# How long a cluster may take to answer again: only a broken one does.
SECONDS = 30
WRITES = 100


def patiently(call, *args):
    """Until it succeeds."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return call(*args)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def failover(client, host, port, leader):
    """Kills the leader's process while writing through another node."""
    put, get = client.connect(host, int(port))
    written = {f"failover:{os.getpid()}:{n}": f"value {n}" for n in range(2 * WRITES)}
    for n, (key, value) in enumerate(written.items()):
        if n == WRITES:
            os.kill(int(leader), signal.SIGKILL)
            killed = time.monotonic()
        patiently(put, key, value)
        if n == WRITES:
            print(f"answers again after {time.monotonic() - killed:.2f} s,", end=" ")
    lost = [key for key, value in written.items() if patiently(get, key) != value]
    assert not lost, f"acknowledged, and not there: {lost}"
    print(f"{len(written)} writes are there")


def check(client, host, port):
    client.check(host, int(port))
    print(client.LIBRARY, importlib.metadata.version(client.LIBRARY))


module, job, *arguments = sys.argv[1:]
{"check": check, "failover": failover}[job](importlib.import_module(module), *arguments)
