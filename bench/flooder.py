"""
Holds connections that ask for nothing, on loopback; says every second what became of them.

    python -m bench.flooder PORT [--connections 10000] [--sources 10000] [--slow 0.5] [--per-second 2000]

They come from so many addresses of 127.0.0.0/8, 127.0.0.1 alone with `--sources 1`.  A share of them sends
a request's headers, a byte a second; the others are silent.  What the other side closes is opened again.
It goes on until it is ended.
"""

from __future__ import annotations

import argparse
import errno
import json
import resource
import selectors
import socket
import sys
import time
from collections import deque

_HEAD = b"POST /xcc/hq HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


class Flooder:
    """Connections to `port` of 127.0.0.1."""

    def __init__(self, port: int, sources: int, slow: float) -> None:
        self._port = port
        self._sources = sources
        self._slow = slow
        self._selector = selectors.DefaultSelector()
        self._dripping: deque[tuple[float, int, socket.socket]] = deque()
        self.open: set[socket.socket] = set()
        self.opened = self.closed = 0

    def connect(self) -> None:
        """Open one more."""
        connection = socket.socket()
        connection.setblocking(False)
        number = self.opened
        self.opened += 1
        if self._sources > 1:
            number %= self._sources
            connection.bind((f"127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}", 0))
        found = connection.connect_ex(("127.0.0.1", self._port))
        if found not in (0, errno.EINPROGRESS):
            connection.close()
            self.closed += 1
            return
        self.open.add(connection)
        self._selector.register(connection, selectors.EVENT_READ)
        if self.opened * self._slow % 1 < self._slow:
            self._dripping.append((time.monotonic() + 1, 0, connection))

    def look(self, seconds: float) -> None:
        """Send what is due, and see which were closed, for some seconds at most."""
        now = time.monotonic()
        while self._dripping and self._dripping[0][0] <= now:
            due, sent, connection = self._dripping.popleft()
            if connection not in self.open:
                continue
            try:
                connection.send((_HEAD + b"x")[min(sent, len(_HEAD)) :][:1])
            except BlockingIOError:
                pass
            except OSError:
                self._close(connection)
                continue
            self._dripping.append((due + 1, sent + 1, connection))
        for key, _ in self._selector.select(seconds):
            found = key.fileobj
            assert isinstance(found, socket.socket)
            try:
                if found.recv(1024):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            self._close(found)

    def _close(self, connection: socket.socket) -> None:
        self.closed += 1
        self.open.discard(connection)
        self._selector.unregister(connection)
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.flooder", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--slow", type=float, default=0.5)
    parser.add_argument("--per-second", type=float, default=2000.0)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    flooder = Flooder(options.port, options.sources, options.slow)
    begun = told = time.monotonic()
    while True:
        now = time.monotonic()
        allowed = (now - begun) * options.per_second - flooder.opened
        for _ in range(min(int(allowed), options.connections - len(flooder.open))):
            flooder.connect()
        flooder.look(0.01)
        if now - told >= 1:
            told = now
            counts = {"opened": flooder.opened, "open": len(flooder.open), "closed": flooder.closed}
            print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
