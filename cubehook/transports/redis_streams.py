"""Delivery into a stream of Redis: what a webhook may say of it.  `redis_sender` does the work."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import msgspec
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound
from cubehook.net.tls import Tls, TlsOptions, check_tls
from cubehook.transports.asyncio_broker import AsyncioTransport, Parcel, Sender, labelled
from cubehook.transports.broker_url import BrokerUrl, read_broker_url
from cubehook.transports.brokers import check_headers, check_tls_is_used
from cubehook.transports.libraries import needs, noted
from cubehook.transports.messages import Pattern

PORTS: Final = {"redis": 6379, "rediss": 6379}
PAYLOAD: Final = "payload"
"""The field that holds an event's body."""

_LIBRARY = "redis"
_EXTRA = "redis"


class RedisOptions(TlsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `options` of a webhook into a stream of Redis."""

    stream: Annotated[
        str, msgspec.Meta(description="the key of the stream, with placeholders; made with its first event")
    ] = "cubehook:{cube}"
    max_length: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        msgspec.Meta(description="about how many entries the stream keeps, the youngest; without it, all"),
    ] = None
    replicas: Annotated[
        int,
        msgspec.Meta(ge=0, le=100, description="how many replicas must have an event before it is delivered"),
    ] = 0


@implementer(ITransportPlugin)
class RedisPlugin:
    """Announces the transport `redis`."""

    name = "redis"
    options = RedisOptions

    @property
    def description(self) -> str:
        return noted("An entry in a stream of Redis", _LIBRARY, _EXTRA)

    def check(self, webhook: Webhook, options: RedisOptions) -> list[tuple[str, str]]:
        problems = needs(_LIBRARY, _EXTRA)
        try:
            url = read_broker_url(webhook.url, PORTS)
        except ValueError as error:
            problems.append(("url", str(error)))
        else:
            problems += _check_url(url) + check_tls_is_used(webhook.url, "rediss", options)
        try:
            pattern = Pattern(options.stream)
        except ValueError as error:
            problems.append(("options.stream", str(error)))
        else:
            if not options.stream or not pattern.literal.isprintable():
                problems.append(("options.stream", "a key of printable characters"))
        if PAYLOAD in webhook.headers:
            problems.append((f"headers.{PAYLOAD}", "another name, since the field holds the event"))
        return problems + check_headers(webhook.headers) + check_tls(options)

    def create(self, webhook: Webhook, options: RedisOptions, context: ITransportContext) -> ITransport:
        url = read_broker_url(webhook.url, PORTS)
        stream = Pattern(options.stream)
        database = _database(url)

        def parcel(outbound: Outbound) -> Parcel:
            return Parcel(
                place=stream.fill(webhook.id, outbound.event),
                labels=labelled(outbound, webhook),
                body=outbound.body,
                timeout=outbound.timeout,
            )

        return AsyncioTransport(
            context,
            address=url.address,
            shown=lambda parcel: f"{url.scheme}://{url.address}/{database}?stream={parcel.place}",
            parcel=parcel,
            make=partial(_make, url, database, options),
            tls=options if url.scheme == "rediss" else None,
        )


async def _make(url: BrokerUrl, database: int, options: RedisOptions, tls: Tls | None) -> Sender:
    from cubehook.transports.redis_sender import RedisSender

    return RedisSender(
        url,
        database=database,
        tls=tls,
        max_length=options.max_length,
        replicas=options.replicas,
    )


def _database(url: BrokerUrl) -> int:
    return int(url.path or 0)


def _check_url(url: BrokerUrl) -> list[tuple[str, str]]:
    problems = []
    if url.path and not (url.path.isascii() and url.path.isdigit() and len(url.path) < 6):
        problems.append(("url", "a URL whose path is the number of a database, such as /0, or nothing"))
    if url.user and not url.password:
        problems.append(("url", "a URL with a password: user:password@ or :password@"))
    return problems
