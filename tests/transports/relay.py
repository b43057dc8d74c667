"""Something between a transport and a broker that can cut, stall and refuse; and brokers to try them on."""

from __future__ import annotations

import getpass
import queue
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from tests.functional.harness import PATIENCE, free_port

reactor: Any = installed

RABBITMQ = ("127.0.0.1", 5672)
MOSQUITTO = ("127.0.0.1", 1883)


def need(broker: tuple[str, int], name: str) -> None:
    """Skip the test if `broker` is not there."""
    try:
        socket.create_connection(broker, timeout=2).close()
    except OSError:
        raise SkipTest(f"there is no {name} at {broker[0]}:{broker[1]}") from None


class Relay(Factory):
    """
    Listens on a free loopback port, and passes what comes on to `target`, and back; with `tls`, from TLS.

    `noticed` fires with each piece that a client sends.
    """

    noisy = False

    def __init__(
        self, test: TestCase, target: tuple[str, int], tls: CertificateOptions | None = None
    ) -> None:
        self.target = target
        self.legs: list[Leg] = []
        self.fars: list[Far] = []
        self.made = 0
        """How many clients have connected."""
        self.holding = False
        """What the broker answers is kept back."""
        self.stalled = False
        """Nothing is passed on in either direction."""
        self.sent: DeferredQueue[bytes] = DeferredQueue()
        self.port = free_port()
        self._tls = tls
        self._listening: Any = None
        self.accept()
        test.addCleanup(lambda: Deferred.fromCoroutine(self._stop()))

    def buildProtocol(self, addr: object) -> Leg:
        return Leg(self)

    def accept(self) -> None:
        """Listen, again if need be."""
        factory: Any = self if self._tls is None else TLSMemoryBIOFactory(self._tls, False, self)
        factory.noisy = False
        self._listening = reactor.listenTCP(self.port, factory, interface="127.0.0.1")

    async def refuse(self) -> None:
        """Accept no connection, and cut those there are."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        await self.cut()

    async def cut(self) -> None:
        """Reset every connection."""
        for leg in list(self.legs):
            leg.cut()
            await leg.lost

    async def _stop(self) -> None:
        await self.refuse()
        for far in list(self.fars):
            far.transport.abortConnection()  # type: ignore[union-attr]
            await far.lost


class Leg(Protocol):
    """One client's connection, and behind it one to the broker."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.lost: Deferred[None] = Deferred()
        self._far: Any = None
        self._connecting: Any = None
        self._early: list[bytes] = []
        self._held: list[bytes] = []

    def connectionMade(self) -> None:
        self.relay.legs.append(self)
        self.relay.made += 1
        self._connecting = TCP4ClientEndpoint(reactor, *self.relay.target).connect(_FarFactory(self))
        self._connecting.addErrback(lambda _: self.cut())

    def dataReceived(self, data: bytes) -> None:
        if self.relay.stalled:
            return
        if self._far is None:
            self._early.append(data)
        else:
            self._far.transport.write(data)
        self.relay.sent.put(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relay.legs.remove(self)
        if self._far is not None:
            self._far.transport.loseConnection()
        else:
            self._connecting.cancel()
        self.lost.callback(None)

    def cut(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def far_made(self, far: Far) -> None:
        self._far = far
        for data in self._early:
            far.transport.write(data)  # type: ignore[union-attr]

    def answer(self, data: bytes) -> None:
        """Give `data` to the client, as the broker's."""
        if self.relay.holding or self.relay.stalled:
            self._held.append(data)
        else:
            self.transport.write(data)  # type: ignore[union-attr]

    def release(self) -> None:
        """Give the client what was kept back."""
        held, self._held = self._held, []
        for data in held:
            self.transport.write(data)  # type: ignore[union-attr]


class _FarFactory(Factory):
    noisy = False

    def __init__(self, leg: Leg) -> None:
        self._leg = leg

    def buildProtocol(self, addr: object) -> Far:
        return Far(self._leg)


class Far(Protocol):
    """The broker's end of a leg."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._leg.relay.fars.append(self)
        self._leg.far_made(self)

    def dataReceived(self, data: bytes) -> None:
        self._leg.answer(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leg.relay.fars.remove(self)
        self.lost.callback(None)
        # Of one that is silent not even its end is heard.
        if not self._leg.lost.called and not self._leg.relay.stalled:
            self._leg.transport.loseConnection()  # type: ignore[union-attr]


class Silent(Factory):
    """Accepts connections and says nothing that a test does not say."""

    noisy = False

    def __init__(self, test: TestCase) -> None:
        self.connections: list[Heard] = []
        self.sent: DeferredQueue[Heard] = DeferredQueue()
        listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = listening.getHost().port
        test.addCleanup(listening.stopListening)

    def buildProtocol(self, addr: object) -> Heard:
        made = Heard(self)
        self.connections.append(made)
        return made

    async def said(self, text: bytes) -> Any:
        """Wait until the next client has said something that holds `text`; its connection."""
        while True:
            heard = await self.sent.get().addTimeout(PATIENCE, reactor)
            if text in heard.data:
                return heard.transport


class Heard(Protocol):
    """A connection, and all that came over it."""

    def __init__(self, listener: Silent) -> None:
        self._listener = listener
        self.data = b""
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._listener.sent.put(self)


class Rabbit:
    """
    A queue of a test's own in RabbitMQ, and what is in it.

    pika's blocking connection is fit for tests: the broker answers from another process.
    """

    def __init__(self, test: TestCase, name: str, **arguments: Any) -> None:
        need(RABBITMQ, "RabbitMQ")
        self.connection = pika.BlockingConnection(
            pika.ConnectionParameters(*RABBITMQ, heartbeat=0, connection_attempts=1)
        )
        test.addCleanup(self._close)
        self.channel = self.connection.channel()
        self.queue = name
        self.channel.queue_declare(name, exclusive=True, arguments=arguments or None)
        self._exchanges: list[str] = []

    def exchange(self, name: str, kind: str, binding: str) -> None:
        """An exchange that is gone after the test, with a binding to the queue."""
        self.channel.exchange_declare(name, kind, durable=True)
        self.drop(name)
        self.channel.queue_bind(self.queue, name, binding)

    def drop(self, exchange: str) -> None:
        """See to it that `exchange` is gone after the test."""
        self._exchanges.append(exchange)

    def taken(self) -> list[tuple[Any, Any, bytes]]:
        """Take all there is: of each message how it came, its properties and its body."""
        found: list[tuple[Any, Any, bytes]] = []
        while True:
            method, properties, body = self.channel.basic_get(self.queue, auto_ack=True)
            if method is None:
                return found
            found.append((method, properties, body or b""))

    def _close(self) -> None:
        channel = self.connection.channel()
        for exchange in self._exchanges:
            channel.exchange_delete(exchange)
        self.connection.close()


class Subscriber:
    """Hears what is published to topics of a test's own; paho's own loop runs in a thread."""

    def __init__(self, test: TestCase, topics: str, broker: tuple[str, int] = MOSQUITTO) -> None:
        self.messages: list[MQTTMessage] = []
        self._came: queue.Queue[MQTTMessage] = queue.Queue()
        self._ready = threading.Event()
        self._topics = topics
        self._client = client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = self._subscribe
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = lambda _, __, message: self._came.put(message)
        client.reconnect_delay_set(1, 1)
        client.connect(*broker)
        client.loop_start()
        test.addCleanup(self._stop)
        if not self._ready.wait(PATIENCE):
            raise AssertionError("the broker took no subscription")

    async def until(self, count: int) -> list[MQTTMessage]:
        """Wait until `count` messages have come in all; all that have."""
        deadline = reactor.seconds() + PATIENCE
        while True:
            while not self._came.empty():
                self.messages.append(self._came.get())
            if len(self.messages) >= count:
                return self.messages
            if reactor.seconds() > deadline:
                raise AssertionError(f"of {count} messages only {len(self.messages)} have come")
            await deferLater(reactor, 0.01)

    def _subscribe(self, *_: object) -> None:
        self._client.subscribe(self._topics, qos=1)

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Mosquitto(ProcessProtocol):
    """A Mosquitto of a test's own, on a free port."""

    def __init__(self, test: TestCase, folder: Path, settings: str = "allow_anonymous true") -> None:
        found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if found is None:
            raise SkipTest("mosquitto is not installed")
        self._program = found
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\npersistence false\nlog_dest stderr\n"
            # Else it becomes another, who may not read the files of a test.
            f"user {getpass.getuser()}\n{settings}\n"
        )
        self._text = b""
        self._started: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._process: Any = None
        test.addCleanup(lambda: Deferred.fromCoroutine(self.kill()))

    async def start(self) -> None:
        """Run it; it listens once this returns."""
        self._started, self._ended = Deferred(), Deferred()
        self._text = b""
        self._process = reactor.spawnProcess(
            self, self._program, [self._program, "-c", str(self._file)], env=None
        )
        await self._started.addTimeout(PATIENCE, reactor)

    async def kill(self) -> None:
        """SIGKILL it, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessExitedAlready):
                process.signalProcess(signal.SIGKILL)
            await self._ended

    def errReceived(self, data: bytes) -> None:
        self._text += data
        if b"running" in self._text and not self._started.called:
            self._started.callback(None)

    outReceived = errReceived

    def processEnded(self, reason: Failure) -> None:
        if not self._started.called:
            self._started.errback(AssertionError(f"mosquitto did not start: {self._text!r}"))
        self._ended.callback(None)


class FastClock:
    """The reactor, but that delayed calls come `times` sooner."""

    def __init__(self, times: float) -> None:
        self._times = times

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        return reactor.callLater(delay / self._times, function, *args, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)
