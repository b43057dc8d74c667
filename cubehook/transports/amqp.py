"""
Delivery into an exchange of an AMQP 0-9-1 broker such as RabbitMQ.

The plugin and what it checks; the protocol is spoken in `amqp_session`, which needs pika.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin
from cubehook.net.tls import TlsOptions, check_tls
from cubehook.transports.broker_url import read_broker_url
from cubehook.transports.brokers import BrokerTransport, check_headers, check_tls_is_used
from cubehook.transports.libraries import needs, noted
from cubehook.transports.messages import LONGEST_VALUE, Pattern

LIBRARY: Final = "pika"
EXTRA: Final = "amqp"
PORTS: Final = {"amqp": 5672, "amqps": 5671}

LONGEST_NAME: Final = 255
"""Bytes of an exchange's name or a routing key (AMQP 0-9-1, short strings)."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


class AmqpOptions(TlsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The `options` of a webhook over AMQP, whose `url` is amqp://user:password@host:port/vhost.

    In `routing_key`, {webhook}, {cube}, {state}, {call}, {calling_number} and {called_number} are replaced.
    Over amqps:// TLS is spoken. Files are PEM, relative to the state folder, and read again when they change.
    """

    routing_key: Annotated[
        str, msgspec.Meta(description="of each message; with no exchange given, the name of a queue")
    ] = ""
    exchange: Annotated[
        str, msgspec.Meta(description="where to publish, the broker's default one if empty")
    ] = ""
    declare: Annotated[
        Literal["direct", "topic", "fanout", "headers"] | None,
        msgspec.Meta(description="make the exchange, durable and of this type, if it is not there"),
    ] = None


@implementer(ITransportPlugin)
class AmqpPlugin:
    """Announces the transport `amqp`."""

    name = "amqp"
    options = AmqpOptions

    @property
    def description(self) -> str:
        return noted("A message to RabbitMQ for each event, confirmed by the broker", LIBRARY, EXTRA)

    def check(self, webhook: Webhook, options: AmqpOptions) -> list[tuple[str, str]]:
        problems = needs(LIBRARY, EXTRA)
        try:
            read_broker_url(webhook.url, PORTS)
        except ValueError as error:
            problems.append(("url", f"{error}, such as amqp://user:password@mq.example.com/vhost"))
        problems += _check_names(options) + check_headers(webhook.headers)
        return problems + check_tls(options) + check_tls_is_used(webhook.url, "amqps", options)

    def create(self, webhook: Webhook, options: AmqpOptions, context: ITransportContext) -> ITransport:
        from cubehook.transports.amqp_session import AmqpSpeaker

        url = read_broker_url(webhook.url, PORTS)
        tls = options if url.scheme == "amqps" else None
        return BrokerTransport(context, url, tls, AmqpSpeaker(url, webhook, options, context))


def _check_names(options: AmqpOptions) -> list[tuple[str, str]]:
    problems = []
    if _UNFIT.search(options.exchange) or len(options.exchange.encode()) > LONGEST_NAME:
        problems.append(
            ("options.exchange", f"a name of at most {LONGEST_NAME} bytes without control characters")
        )
    elif options.declare is not None and (not options.exchange or options.exchange.startswith("amq.")):
        problems.append(
            ("options.exchange", "an exchange that can be declared: neither the default one nor amq.*")
        )
    try:
        key = Pattern(options.routing_key)
    except ValueError as error:
        problems.append(("options.routing_key", str(error)))
        return problems
    if _UNFIT.search(key.literal):
        problems.append(("options.routing_key", "a text without control characters"))
    elif len(key.literal.encode()) + LONGEST_VALUE * len(key.names) > LONGEST_NAME:
        problems.append(
            (
                "options.routing_key",
                f"a text of at most {LONGEST_NAME} bytes, each placeholder counted as {LONGEST_VALUE}",
            )
        )
    elif not options.exchange and not options.routing_key:
        problems.append(
            ("options.routing_key", "the name of a queue, or an exchange in options.exchange to publish to")
        )
    return problems
