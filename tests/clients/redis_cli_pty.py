"""redis-cli in a terminal, as a person uses it."""

import os
import pty
import re
import select
import subprocess
import sys
import time

SECONDS = 30


class Terminal:
    """A program that believes that a person sits in front of it."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execvp(command[0], command)
        self.seen = ""

    def until(self, text):
        """What is shown up to where this text ends."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready = select.select([self.fd], [], [], max(left, 0))[0]
            assert ready, f"waited for {text!r}, saw {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode()
        shown, self.seen = self.seen.split(text, 1)
        return shown

    def type(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def end(self):
        """Waits until the program has ended, well."""
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass  # How Linux says that nobody is at the other side.
        assert os.waitpid(self.pid, 0)[1] == 0


def main(host, port):
    terminal = Terminal("timeout", "--foreground", "60", "redis-cli", "-h", host, "-p", port)
    prompt = f"{host}:{port}> "
    terminal.until(prompt)
    for line, reply in [
        ("SET person 'a b'", "OK"),
        ("get person", '"a b"'),
        ("GET nobody", "(nil)"),
        ("INCRBY visits 5", "(integer) "),
        ("GET", "(error) ERR wrong number of arguments for 'get' command"),
        ("3 PING", "PONG\r\nPONG\r\nPONG"),
        ("HELLO 3", '1# "server" => "redis"'),
        ("MGET person nobody", '1) "a b"\r\n2) (nil)'),
        ("HELP SET", "SET"),
    ]:
        terminal.type(line)
        shown = terminal.until(prompt)
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        assert reply in shown, f"to {line}: {shown!r}, not {reply!r}"
    # The prompt shows the database, and the transaction.
    terminal.type("SELECT 3")
    terminal.until(f"{host}:{port}[3]> ")
    terminal.type("MULTI")
    terminal.until(f"{host}:{port}[3](TX)> ")
    terminal.type("DISCARD")
    terminal.until(f"{host}:{port}[3]> ")
    terminal.type("quit")
    terminal.end()
    subprocess.run(["redis-cli", "--version"], check=True)


main(*sys.argv[1:])
