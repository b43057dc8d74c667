"""
AMQP 0-9-1 as pika speaks it, over a connection of Twisted's.

pika's own adapter for Twisted is not used: it makes an endpoint's connection, but forgets why a broker closed
it, closes one that hangs only once all is sent, and takes a message that came back for the wrong one when
several are confirmed at once, which would lose an event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pika import BasicProperties, ConnectionParameters, PlainCredentials, exceptions, spec
from pika.channel import Channel
from pika.connection import Connection
from pika.frame import Method
from twisted.internet.defer import Deferred

from cubehook.config import Webhook
from cubehook.interfaces import ITransportContext, Outbound
from cubehook.net.urls import MASK
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.amqp import AmqpOptions
from cubehook.transports.broker_url import BrokerUrl
from cubehook.transports.brokers import Answer, BrokerError, Message, Session
from cubehook.transports.messages import Pattern, labels

HEARTBEAT: Final = 20
"""Seconds, as agreed with the broker; it is given up after up to 2.5 times as long without a sign of life."""

_PERSISTENT = 2
_FRAME = 7
"""Bytes before a frame's payload: type, channel and length."""

# All that it would say is told in the log of attempts, and some of it shows bodies.
logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


class AmqpMessage(msgspec.Struct, frozen=True):
    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    """pika's BasicProperties."""


class AmqpSpeaker:
    """What a webhook sends, and as whom."""

    def __init__(
        self, url: BrokerUrl, webhook: Webhook, options: AmqpOptions, context: ITransportContext
    ) -> None:
        self._reactor = context.reactor
        self._options = options
        self._webhook = webhook
        self._key = Pattern(options.routing_key)
        self._masked = dict.fromkeys(webhook.headers, MASK)
        self._parameters = ConnectionParameters(
            host=url.host,
            port=url.port,
            virtual_host=url.path or "/",
            credentials=PlainCredentials(
                "guest" if url.user is None else url.user, "guest" if url.password is None else url.password
            ),
            heartbeat=HEARTBEAT,
            client_properties={
                "product": "cubehook",
                "version": context.version,
                "connection_name": f"cubehook {webhook.id}",
            },
        )

    def session(self) -> AmqpSession:
        return AmqpSession(self._reactor, self._parameters, self._options)

    def message(self, outbound: Outbound) -> Message[AmqpMessage]:
        told = labels(outbound)
        key = self._key.fill(self._webhook.id, outbound.event)
        at = outbound.event.at // 1_000_000
        properties = BasicProperties(
            content_type=outbound.content_type,
            delivery_mode=_PERSISTENT,
            message_id=outbound.id,
            timestamp=at,
            type=told["cubehook-state"],
            app_id="cubehook",
            headers={**told, **self._webhook.headers},
        )
        shown = {
            "exchange": self._options.exchange,
            "routing_key": key,
            "message_id": outbound.id,
            "timestamp": str(at),
            "content_type": outbound.content_type,
            **told,
            **self._masked,
        }
        return Message(AmqpMessage(self._options.exchange, key, outbound.body, properties), shown)


class _Published:
    """A message that the broker has not confirmed yet."""

    __slots__ = ("message", "returned", "waiter")

    def __init__(self, message: AmqpMessage, waiter: Deferred[Answer]) -> None:
        self.message = message
        self.waiter = waiter
        self.returned: str | None = None
        """Why the broker sent it back."""


class AmqpSession(Session[AmqpMessage]):
    """
    One connection with one channel, on which the broker confirms what it took.

    An exchange that is not there, or may not be written to, closes the channel for all that is on its way;
    as they all go to the same exchange, the connection is closed with it.
    """

    _channel: Channel

    def __init__(self, reactor: Any, parameters: ConnectionParameters, options: AmqpOptions) -> None:
        super().__init__(reactor)
        self._options = options
        self._published: dict[int, _Published] = {}
        self._tag = 0
        self._blocked: str | None = None
        self._pika = _Connection(parameters, self)

    # Session

    def began(self) -> None:
        self._pika._on_stream_connected()

    def length(self, buffer: bytearray) -> int | None:
        if buffer[:4] == b"AMQP":
            return 8
        if len(buffer) < _FRAME:
            return None
        return _FRAME + int.from_bytes(buffer[3:_FRAME], "big") + 1

    def received(self, frame: bytes) -> None:
        self._pika._on_data_available(frame)

    def ended(self) -> None:
        self._pika._on_stream_terminated(exceptions.StreamLostError("it is closed"))

    def goodbye(self) -> None:
        self._pika.close()

    def reason_for_wait(self) -> BrokerError | None:
        if self._blocked is None:
            return None
        return BrokerError(
            ErrorClass.TIMEOUT, f"the broker takes no messages for now ({printable(self._blocked)})", hold=0.0
        )

    def send(self, message: AmqpMessage) -> Deferred[Answer]:
        try:
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, mandatory=True
            )
        except Exception:
            # Nothing is known of what the broker will count.
            self.fail(BrokerError(ErrorClass.OTHER, "a message could not be written"))
            raise
        self._tag += 1
        waiter = self.waiter()
        self._published[self._tag] = _Published(message, waiter)
        return waiter

    # What pika calls

    def opened(self, _: object) -> None:
        self._pika.channel(on_open_callback=self._channel_opened)

    def disconnect(self, error: Exception | None) -> None:
        """pika wants the connection closed, because of `error`."""
        if isinstance(error, exceptions.ConnectionClosedByClient):
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif isinstance(error, exceptions.AMQPHeartbeatTimeout):
            self.fail(
                BrokerError(
                    ErrorClass.CONNECTION_LOST, "the connection was given up: the broker has fallen silent"
                )
            )
        elif isinstance(error, exceptions.ConnectionClosedByBroker):
            what = "closed the connection" if self.ready.called else "refused the login"
            self.close(BrokerError(ErrorClass.OTHER, f"the broker {what}: {printable(error.reply_text)}"))
        else:
            self.close(BrokerError(ErrorClass.OTHER, f"the connection failed: {printable(_told(error))}"))

    def blocked(self, _: object, frame: Method[spec.Connection.Blocked]) -> None:
        self._blocked = frame.method.reason

    def unblocked(self, _: object, frame: object) -> None:
        self._blocked = None

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        if self._options.declare is None:
            self._select()
        else:
            channel.exchange_declare(
                self._options.exchange,
                self._options.declare,
                durable=True,
                callback=lambda _: self._select(),
            )

    def _select(self) -> None:
        self._channel.confirm_delivery(self._confirmed, callback=lambda _: self.is_ready())

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        if self.over is None and isinstance(error, exceptions.ChannelClosedByBroker):
            self.close(
                BrokerError(ErrorClass.OTHER, f"the broker closed the channel: {printable(error.reply_text)}")
            )

    def _returned(
        self, channel: Channel, method: spec.Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        # It names no tag.  One that was cancelled may still be on its way, with the same id, before this one.
        for published in self._published.values():
            if (
                published.returned is None
                and published.message.properties.message_id == properties.message_id
            ):
                published.returned = method.reply_text or str(method.reply_code)
                return

    def _confirmed(self, frame: Method[spec.Basic.Ack | spec.Basic.Nack]) -> None:
        # A message comes back, if it does, before it is confirmed.
        confirmation = frame.method
        last = confirmation.delivery_tag
        tags = [last]
        if confirmation.multiple:
            # 0 stands for all there are.
            tags = [tag for tag in self._published if tag <= last or not last]
        over = [self._published.pop(tag) for tag in tags]
        refused = isinstance(confirmation, spec.Basic.Nack)
        for published in over:
            self.settle(published.waiter, _refusal() if refused else _outcome(published))


def _refusal() -> BrokerError:
    return BrokerError(
        ErrorClass.OTHER, "the broker could not take the message (nack), as when a queue is full", hold=0.0
    )


def _outcome(published: _Published) -> Answer | BrokerError:
    if published.returned is None:
        return None
    message = published.message
    if message.exchange:
        where = f"no queue is bound for exchange {message.exchange}, routing key {message.routing_key}"
    else:
        where = f"there is no queue {message.routing_key}"
    return BrokerError(
        ErrorClass.OTHER, f"the broker sent the message back: {where} ({printable(published.returned)})"
    )


def _told(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}"


class _Timer:
    def __init__(self, call: Any) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class _Connection(Connection):
    """pika's protocol, for which a session is the adapter to a connection."""

    def __init__(self, parameters: ConnectionParameters, session: AmqpSession) -> None:
        self._session = session
        super().__init__(
            parameters=parameters,
            on_open_callback=session.opened,
            on_open_error_callback=lambda *_: None,
            on_close_callback=lambda *_: None,
            internal_connection_workflow=False,
        )
        self.add_on_connection_blocked_callback(session.blocked)
        self.add_on_connection_unblocked_callback(session.unblocked)

    def _adapter_call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        return _Timer(self._session.reactor.callLater(delay, callback))

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        self._session.reactor.callFromThread(callback)

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError("the endpoint connects")

    def _adapter_disconnect_stream(self) -> None:
        self._session.disconnect(self._error)

    def _adapter_emit_data(self, data: bytes) -> None:
        self._session.write(data)
