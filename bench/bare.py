"""
The bare costs beside which the service's are read: CPU microseconds of one process for each operation.

`python -m bench.bare WHAT COUNT` runs one in a process of its own and prints JSON:

- `klein`: an empty POST to a Klein application behind a plain `Site`, with a gateway's headers;
- `lxml`: parsing one captured notification with `lxml.etree.fromstring`;
- `treq`: a `treq.post` of a basic payload on kept-alive connections, its answer read.

The other end of `klein` and `treq` is a separate process with plain sockets, so that only the measured
side's CPU is counted.
"""

from __future__ import annotations

import json
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
WARM_UP = 500

_CALLER = """
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
request = sys.stdin.buffer.read()
connection = socket.create_connection(("127.0.0.1", port))
for _ in range(count):
    connection.sendall(request)
    answer = connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit("unexpected answer: %r" % answer[:80])
"""

_RECEIVER = """
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
        if not key.fileobj.recv(65536):
            poll.unregister(key.fileobj)
            key.fileobj.close()
            continue
        key.fileobj.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
"""


def klein(count: int) -> float:
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
    spent = 0.0

    def call() -> None:
        nonlocal spent
        for number in (WARM_UP, count):
            started = time.process_time()
            subprocess.run([sys.executable, "-c", _CALLER, str(port), str(number)], input=REQUEST, check=True)
            spent = time.process_time() - started
        reactor.callFromThread(reactor.stop)

    reactor.callInThread(call)
    reactor.run()
    return spent / count


def lxml(count: int) -> float:
    from lxml import etree

    for number in (WARM_UP, count):
        started = time.process_time()
        for _ in range(number):
            etree.fromstring(NOTIFICATION)
        spent = time.process_time() - started
    return spent / count


def treq(count: int) -> float:
    import treq as library
    from twisted.internet import task
    from twisted.internet.defer import Deferred, gatherResults

    receiver = subprocess.Popen([sys.executable, "-c", _RECEIVER], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    url = f"http://127.0.0.1:{int(receiver.stdout.readline())}/calls"
    spent = 0.0

    async def post_in_turn(number: int) -> None:
        for _ in range(number):
            response = await library.post(url, data=PAYLOAD, headers={"Content-Type": "application/json"})
            await response.content()

    async def main(reactor: Any) -> None:
        nonlocal spent
        for number in (WARM_UP, count):
            started = time.process_time()
            # Two at a time, as many as treq's own pool keeps connections to one host.
            await gatherResults([Deferred.fromCoroutine(post_in_turn(number // 2)) for _ in range(2)])
            spent = time.process_time() - started

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        receiver.kill()
        receiver.wait()
    return spent / count


def measure(what: str, count: int, cpu: set[int] | None = None) -> float:
    """CPU seconds of one `what`, measured in a process of its own, if wanted on these processors."""
    import os

    def pin() -> None:
        if cpu:
            os.sched_setaffinity(0, cpu)

    found = subprocess.run(
        [sys.executable, "-m", "bench.bare", what, str(count)],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=pin,
    )
    return float(json.loads(found.stdout)["cpu_us"]) / 1e6


if __name__ == "__main__":
    name, times = sys.argv[1], int(sys.argv[2])
    print(
        json.dumps(
            {
                "what": name,
                "count": times,
                "cpu_us": {"klein": klein, "lxml": lxml, "treq": treq}[name](times) * 1e6,
            }
        )
    )
