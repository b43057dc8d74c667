"""
The bare costs beside which the service's are read: CPU microseconds of one process for each operation.

`python -m bench.bare WHAT RATE` does one so many times a second in a process of its own and prints JSON:

- `klein`: an empty POST to a Klein application behind a plain `Site`, with a gateway's headers;
- `lxml`: parsing one captured notification with `lxml.etree.fromstring`;
- `treq`: a `treq.post` of a basic payload on kept-alive connections, its answer read.

The rate matters: what a process does between two sleeps costs up to twice of what it costs in a tight
loop, so the service and the bare operations are compared at the same rates, and at full speed beside
that.  The other end of `klein` and `treq` is a separate process with plain sockets, so that only the
measured side's CPU is counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

NOTIFICATION = (
    b'<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">'
    b'<SOAP:Body><NotifyXccConnectionData xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader>'
    b"<transactionID>546CF8:25</transactionID><registrationID>4CA5E4:XCC:myapp:4</registrationID></msgHeader>"
    b"<callData><callID>25</callID><state>ACTIVE</state></callData><connData><connID>132</connID>"
    b"<state>ALERTING</state></connData><event><alerting/></event></NotifyXccConnectionData></SOAP:Body></SOAP:Envelope>"
)
REQUEST = (
    b"POST /xcc/hq HTTP/1.1\r\nHost: 192.0.2.20:8090\r\nContent-Length: %d\r\n"
    b"Content-Type: application/soap+xml\r\nConnection: Keep-Alive\r\n"
    b"Accept: text/vxml, text/x-vxml, application/vxml, application/x-vxml, "
    b"application/voicexml, application/x-voicexml, text/plain, text/html, audio/basic, audio/wav, "
    b"multipart/form-data, application/octet-stream\r\nUser-Agent: Cisco-IOS-C3900/15.2\r\n\r\n"
) % len(NOTIFICATION) + NOTIFICATION
PAYLOAD = (
    b'{"call_state":"DISCONNECTED","called_number":"+12512501663","calling_number":"+12517676234",'
    b'"timestamp":"2024-11-23T16:03:36.200940Z"}'
)
CONNECTIONS = 64
PARALLEL = 8
"""Posts under way at once, each loop waiting between its own."""
SECONDS = 6.0
WARM_UP = 1.0

_CALLER = """
import selectors, socket, sys, time
port, rate, seconds, connections = int(sys.argv[1]), *map(float, sys.argv[2:5])
request = sys.stdin.buffer.read()
free = [socket.create_connection(("127.0.0.1", port)) for _ in range(int(connections))]
poll = selectors.DefaultSelector()
for connection in free:
    poll.register(connection, selectors.EVENT_READ)
sent = answered = 0
began = time.monotonic()
while (now := time.monotonic() - began) < seconds:
    while free and sent < now * rate:
        free.pop().sendall(request)
        sent += 1
    for key, _ in poll.select(0.001):
        if not key.fileobj.recv(65536).startswith(b"HTTP/1.1 200"):
            sys.exit("unexpected answer")
        free.append(key.fileobj)
        answered += 1
print(answered)
"""

RECEIVER = """
import selectors, socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
poll = selectors.DefaultSelector()
poll.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in poll.select():
        if key.fileobj is listener:
            poll.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(65536)
        if not data:
            poll.unregister(key.fileobj)
            key.fileobj.close()
            continue
        if not data.endswith(b"}"):
            continue  # the body comes in a segment of its own
        key.fileobj.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
"""


def klein(rate: float) -> float:
    from klein import Klein
    from twisted.internet import reactor as installed
    from twisted.web.server import Site

    reactor: Any = installed
    app = Klein()

    @app.route("/", branch=True)
    def receive(request: Any) -> bytes:
        request.content.read()
        return b""

    port = reactor.listenTCP(0, Site(app.resource()), interface="127.0.0.1").getHost().port
    spent, count = 0.0, 0

    def call() -> None:
        nonlocal spent, count
        for seconds in (WARM_UP, SECONDS):
            arguments = map(str, (port, rate, seconds, CONNECTIONS))
            started = time.process_time()
            found = subprocess.run(
                [sys.executable, "-c", _CALLER, *arguments], input=REQUEST, stdout=subprocess.PIPE, check=True
            )
            spent, count = time.process_time() - started, int(found.stdout)
        reactor.callFromThread(reactor.stop)

    reactor.callInThread(call)
    reactor.run()
    return spent / count


def lxml(rate: float) -> float:
    from lxml import etree

    pause = 1 / rate
    spent = 0.0
    count = min(int(rate * WARM_UP), 5000)
    for _ in range(count):
        started = time.process_time()
        etree.fromstring(NOTIFICATION)
        spent += time.process_time() - started
        time.sleep(pause)
    return spent / count


def treq(rate: float) -> float:
    import treq as library
    from twisted.internet import task
    from twisted.internet.defer import Deferred
    from twisted.web.client import HTTPConnectionPool
    from twisted.web.http_headers import Headers

    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    url = f"http://127.0.0.1:{int(receiver.stdout.readline())}/calls"
    headers = Headers({"Content-Type": ["application/json"]})
    spent, count = 0.0, 0

    async def main(reactor: Any) -> None:
        nonlocal spent, count
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = PARALLEL

        async def post_in_turn(until: float) -> int:
            done = 0
            while time.monotonic() < until:
                response = await library.post(url, data=PAYLOAD, headers=headers, pool=pool)
                await response.content()
                done += 1
                await task.deferLater(reactor, PARALLEL / rate)
            return done

        for seconds in (WARM_UP, SECONDS):
            until, cpu = time.monotonic() + seconds, time.process_time()
            parts = [Deferred.fromCoroutine(post_in_turn(until)) for _ in range(PARALLEL)]
            count = 0
            for part in parts:
                count += await part
            spent = time.process_time() - cpu
        await pool.closeCachedConnections()

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        receiver.kill()
        receiver.wait()
    return spent / count


def measure(what: str, rate: float, cpu: set[int] | None = None) -> float:
    """CPU seconds of one `what` at `rate` a second, in a process of its own, if wanted on these CPUs."""

    def pin() -> None:
        if cpu:
            os.sched_setaffinity(0, cpu)

    found = subprocess.run(
        [sys.executable, "-m", "bench.bare", what, str(rate)],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=pin,
    )
    return float(json.loads(found.stdout)["cpu_us"]) / 1e6


if __name__ == "__main__":
    name, each_second = sys.argv[1], float(sys.argv[2])
    cost = {"klein": klein, "lxml": lxml, "treq": treq}[name](each_second)
    print(json.dumps({"what": name, "rate": each_second, "cpu_us": cost * 1e6}))
