"""
MQTT as paho speaks it, over a connection of Twisted's.

paho would connect, resolve names and negotiate TLS by itself, and block meanwhile.  It is given something
like a socket instead, behind which an endpoint's connection stands; the rest of it, an event loop of its
own left out, is what its documentation calls an external loop.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from cubehook.config import Webhook
from cubehook.interfaces import ITransportContext, Outbound
from cubehook.net.urls import MASK
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.broker_url import BrokerUrl
from cubehook.transports.brokers import Answer, BrokerError, Message, Session
from cubehook.transports.messages import Pattern, labels
from cubehook.transports.mqtt import MqttOptions

KEEPALIVE: Final = 20
"""Seconds without a packet after which the broker is asked for a sign of life; it has as long to give it."""

UNACKNOWLEDGED: Final = 20
"""
Messages on their way at once to a broker of MQTT 3.1.1, which cannot say how many it takes; Mosquitto's
own default.
"""

_MOST_UNACKNOWLEDGED = 65_535
_LENGTH_BYTES = 4
_TEXT_FORMAT = 1

# MQTT 5, section 2.4.
_NO_SUBSCRIBERS = 0x10
_SERVER_UNAVAILABLE = 0x88
_SERVER_BUSY = 0x89
_TAKEN_OVER = 0x8E
_QUOTA_EXCEEDED = 0x97
_RATE_EXCEEDED = 0x9F
_HOLDING = frozenset((_SERVER_UNAVAILABLE, _SERVER_BUSY, _QUOTA_EXCEEDED, _RATE_EXCEEDED))


_NOBODY = "the broker knows of no subscriber for the topic"


class MqttMessage(msgspec.Struct, frozen=True):
    topic: str
    body: bytes
    content_type: str
    labels: dict[str, str]
    """The webhook's own headers among them."""


class MqttSpeaker:
    """What a webhook sends, and as whom."""

    def __init__(
        self, url: BrokerUrl, webhook: Webhook, options: MqttOptions, context: ITransportContext
    ) -> None:
        self._reactor = context.reactor
        self._url = url
        self._options = options
        self._webhook = webhook
        self._topic = Pattern(options.topic)
        self._masked = dict.fromkeys(webhook.headers, MASK)

    def session(self) -> MqttSession:
        client_id = self._options.client_id or f"cubehook-{self._webhook.id}"
        return MqttSession(self._reactor, self._url, client_id, self._options)

    def message(self, outbound: Outbound) -> Message[MqttMessage]:
        told = labels(outbound)
        topic = self._topic.fill(self._webhook.id, outbound.event)
        shown = {"topic": topic, "retain": "true"} if self._options.retain else {"topic": topic}
        if self._options.version == "5":
            shown |= {"content_type": outbound.content_type, **told, **self._masked}
        content = MqttMessage(topic, outbound.body, outbound.content_type, {**told, **self._webhook.headers})
        return Message(content, shown)


class MqttSession(Session[MqttMessage]):
    """
    One connection, with a session that begins clean.

    No more messages are on their way at once than the broker takes; the others wait for their turn.
    """

    def __init__(self, reactor: Any, url: BrokerUrl, client_id: str, options: MqttOptions) -> None:
        super().__init__(reactor)
        self._url = url
        self._options = options
        self._client_id = client_id
        self._is_5 = options.version == "5"
        self._room = UNACKNOWLEDGED
        self._largest: int | None = None
        self._unacknowledged: dict[int, Deferred[Answer]] = {}
        self._queued: deque[tuple[MqttMessage, Deferred[Answer]]] = deque()
        self._leaving = False
        # What paho told while it was reading; it is not fit to be asked for more before it is done.
        self._told: list[tuple[Any, ...]] = []
        self._tick = LoopingCall(self._misc)
        self._tick.clock = reactor
        self._socket = _Socket(self)
        self._paho = client = _Client(self._socket, client_id, self._is_5)
        client.username = url.user
        client.password = url.password
        client.max_inflight_messages = 0
        client.on_connect = lambda _, __, ___, reason, properties: self._told.append(
            (self._connected, reason, properties)
        )
        client.on_publish = lambda _, __, mid, reason, properties: self._told.append(
            (self._acknowledged, mid, reason, properties)
        )
        client.on_disconnect = lambda _, __, flags, reason, properties: self._told.append(
            (self._disconnected, flags.is_disconnect_packet_from_server, reason, properties)
        )

    # Session

    def began(self) -> None:
        start: dict[str, Any] = {"clean_start": True} if self._is_5 else {}
        self._paho.connect(self._url.host, self._url.port, KEEPALIVE, **start)
        _ = self._tick.start(KEEPALIVE / 4, now=False).addErrback(self._broken)

    def length(self, buffer: bytearray) -> int | None:
        return packet_length(buffer)

    def received(self, frame: bytes) -> None:
        self._socket.fill(frame)
        self._done(self._paho.loop_read())

    def ended(self) -> None:
        if self._tick.running:
            self._tick.stop()

    def hang_up(self) -> None:
        """paho has closed its socket: because we leave, or because of what it tells next."""
        if self._leaving:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def goodbye(self) -> None:
        self._leaving = True
        self._paho.disconnect()
        self._heed()

    def send(self, message: MqttMessage) -> Deferred[Answer]:
        waiter = self.waiter()
        self._queued.append((message, waiter))
        self._publish()
        return waiter

    # Publishing

    def _publish(self) -> None:
        while self.over is None and self._queued and len(self._unacknowledged) < self._room:
            message, waiter = self._queued.popleft()
            if not self.waits(waiter):
                continue
            properties = self._properties(message) if self._is_5 else None
            if self._largest is not None and _size(message, properties) > self._largest:
                self.settle(waiter, _too_large(self._largest))
                continue
            told = self._paho.publish(
                message.topic, message.body, qos=1, retain=self._options.retain, properties=properties
            )
            self._unacknowledged[told.mid] = waiter
            self._done(told.rc)

    def _properties(self, message: MqttMessage) -> Properties:
        properties = Properties(PacketTypes.PUBLISH)
        properties.PayloadFormatIndicator = _TEXT_FORMAT
        properties.ContentType = message.content_type
        properties.UserProperty = list(message.labels.items())
        return properties

    # What paho tells

    def _done(self, code: MQTTErrorCode) -> None:
        self._heed()
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and self.over is None and not self._leaving:
            self.fail(BrokerError(ErrorClass.OTHER, f"the connection failed: {code.name}"))

    def _heed(self) -> None:
        while self._told:
            told, self._told = self._told, []
            for method, *arguments in told:
                method(*arguments)

    def _misc(self) -> None:
        self._done(self._paho.loop_misc())

    def _broken(self, failure: Any) -> None:
        self.fail(BrokerError(ErrorClass.OTHER, f"paho-mqtt failed: {printable(failure.getErrorMessage())}"))

    def _connected(self, reason: ReasonCode, properties: Properties | None) -> None:
        if self.over is not None:
            return
        if reason.is_failure:
            self.close(self._refusal("refused the login", reason, properties))
            return
        if getattr(properties, "MaximumQoS", 1) < 1:
            self.close(BrokerError(ErrorClass.OTHER, "the broker takes messages with QoS 0 only"))
            return
        if self._is_5:
            self._room = getattr(properties, "ReceiveMaximum", _MOST_UNACKNOWLEDGED)
            self._largest = getattr(properties, "MaximumPacketSize", None)
        self.is_ready()

    def _acknowledged(self, mid: int, reason: ReasonCode, properties: Properties | None) -> None:
        waiter = self._unacknowledged.pop(mid, None)
        if waiter is None:
            return
        if reason.is_failure:
            self.settle(waiter, self._refusal("did not take the message", reason, properties))
        else:
            self.settle(waiter, _NOBODY if reason.value == _NO_SUBSCRIBERS else None)
        self._publish()

    def _disconnected(self, by_broker: bool, reason: ReasonCode, properties: Properties | None) -> None:
        if self.over is not None or self._leaving:
            return
        if by_broker:
            self.fail(self._refusal("ended the connection", reason, properties))
        elif reason.value == _KEEP_ALIVE_TIMEOUT:
            self.fail(
                BrokerError(
                    ErrorClass.CONNECTION_LOST, "the connection was given up: the broker has fallen silent"
                )
            )
        else:
            self.fail(BrokerError(ErrorClass.OTHER, f"the connection failed: {reason}"))

    def _refusal(self, what: str, reason: ReasonCode, properties: Properties | None) -> BrokerError:
        words = f"the broker {what}: {reason}"
        told = getattr(properties, "ReasonString", None)
        if told:
            words += f" ({printable(told)})"
        if reason.value == _TAKEN_OVER:
            words += f". Another client is {self._client_id}, too: each needs an options.client_id of its own"
        return BrokerError(ErrorClass.OTHER, words, hold=0.0 if reason.value in _HOLDING else None)


_KEEP_ALIVE_TIMEOUT = 0x8D


def packet_length(buffer: bytes | bytearray) -> int | None:
    """
    Bytes of the packet that `buffer` begins with (MQTT 5, section 1.5.5); None if too little is there.

    ValueError if there is no such packet.
    """
    length = 0
    for position, byte in enumerate(buffer[1 : 1 + _LENGTH_BYTES]):
        length += (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return 2 + position + length
    if len(buffer) > _LENGTH_BYTES:
        raise ValueError("a packet whose length has no end")
    return None


def _size(message: MqttMessage, properties: Properties | None) -> int:
    """At least how long its packet is."""
    packed = len(properties.pack()) if properties is not None else 0
    return 1 + _LENGTH_BYTES + 2 + len(message.topic.encode()) + 2 + packed + len(message.body)


def _too_large(largest: int) -> BrokerError:
    return BrokerError(
        ErrorClass.OTHER,
        f"the message is too large: the broker takes packets of up to {largest} bytes",
        permanent=True,
    )


class _Socket:
    """What paho takes for its socket."""

    def __init__(self, session: MqttSession) -> None:
        self._session = session
        self._received = b""
        self._position = 0

    def fill(self, data: bytes) -> None:
        """Have `data` read next; what was not read before it is of no use any more."""
        self._received = data
        self._position = 0

    def recv(self, buffer_size: int) -> bytes:
        if self._position == len(self._received):
            raise BlockingIOError
        chunk = self._received[self._position : self._position + buffer_size]
        self._position += len(chunk)
        return chunk

    def send(self, buffer: bytes | bytearray) -> int:
        self._session.write(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        self._session.hang_up()

    def fileno(self) -> int:
        raise OSError("it is not the system's")

    def setblocking(self, flag: bool) -> None:
        pass


class _Client(Client):
    """paho's client, over a connection that is already there."""

    def __init__(self, socket: _Socket, client_id: str, is_5: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._given = socket

    def _create_socket(self) -> _Socket:
        return self._given
