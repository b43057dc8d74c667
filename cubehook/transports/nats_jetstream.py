"""Delivery into a stream of NATS JetStream: what a webhook may say of it.  `nats_sender` does the work."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
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

PORTS: Final = {"nats": 4222, "tls": 4222}
_LIBRARY = "nats"
_EXTRA = "nats"

# Printable ASCII without space, `*`, `.` and `>`.
_SUBJECT = re.compile(r"(?!\$|_INBOX\.)[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*")
_STREAM = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class NatsOptions(TlsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `options` of a webhook into JetStream."""

    subject: Annotated[
        str,
        msgspec.Meta(description="what events are published to, with placeholders; some stream must take it"),
    ] = "cubehook.{cube}.{state}"
    expected_stream: Annotated[
        str | None, msgspec.Meta(description="the name of the stream that must be the one that takes it")
    ] = None
    credentials_file: Annotated[
        str | None,
        msgspec.Meta(description="a .creds file, relative to the state folder, with the user's JWT and seed"),
    ] = None


@implementer(ITransportPlugin)
class NatsPlugin:
    """Announces the transport `nats`."""

    name = "nats"
    options = NatsOptions

    @property
    def description(self) -> str:
        return noted("A message in a stream of NATS JetStream, acknowledged", _LIBRARY, _EXTRA)

    def check(self, webhook: Webhook, options: NatsOptions) -> list[tuple[str, str]]:
        problems = needs(_LIBRARY, _EXTRA)
        try:
            url = read_broker_url(webhook.url, PORTS)
        except ValueError as error:
            problems.append(("url", str(error)))
        else:
            problems += _check_url(url, options) + check_tls_is_used(webhook.url, "tls", options)
        expected = _expected_subject(options.subject)
        if expected is not None:
            problems.append(("options.subject", expected))
        if options.expected_stream is not None and not _STREAM.fullmatch(options.expected_stream):
            problems.append(("options.expected_stream", "the name of a stream"))
        if options.credentials_file is not None:
            if not options.credentials_file:
                problems.append(("options.credentials_file", "the name of a file, or none"))
            problems += needs("nkeys", _EXTRA)
        for name in webhook.headers:
            if not _HEADER.fullmatch(name) or name.lower().startswith("nats-"):
                problems.append((f"headers.{name}", "a name that does not begin with Nats-"))
        return problems + check_headers(webhook.headers) + check_tls(options)

    def create(self, webhook: Webhook, options: NatsOptions, context: ITransportContext) -> ITransport:
        url = read_broker_url(webhook.url, PORTS)
        subject = Pattern(options.subject)

        def parcel(outbound: Outbound) -> Parcel:
            told = labelled(outbound, webhook)
            if not outbound.redelivery:
                # What is sent again on purpose must not be taken for a repeat by the server.
                told["Nats-Msg-Id"] = outbound.id
            return Parcel(
                place=subject.fill(webhook.id, outbound.event),
                labels=told,
                body=outbound.body,
                timeout=outbound.timeout,
            )

        return AsyncioTransport(
            context,
            address=url.address,
            shown=lambda parcel: f"{url.scheme}://{url.address}/{parcel.place}",
            parcel=parcel,
            make=partial(_make, url, options, context.state_dir),
            tls=options if url.scheme == "tls" else None,
        )


async def _make(url: BrokerUrl, options: NatsOptions, state_dir: Path, tls: Tls | None) -> Sender:
    from cubehook.transports.nats_sender import NatsSender

    credentials = options.credentials_file
    return NatsSender(
        url,
        tls=tls,
        credentials=None if credentials is None else state_dir / credentials,
        expected_stream=options.expected_stream,
    )


def _check_url(url: BrokerUrl, options: NatsOptions) -> list[tuple[str, str]]:
    problems = []
    if url.path:
        problems.append(("url", "a URL without a path: what is published to is options.subject"))
    if url.user is not None and options.credentials_file is not None:
        problems.append(("url", "a URL without user and password, since there is a credentials_file"))
    if url.user == "" or url.password == "":
        problems.append(("url", "a URL with user and password, with a token before the @, or without either"))
    return problems


def _expected_subject(text: str) -> str | None:
    try:
        Pattern(text)
    except ValueError as error:
        return str(error)
    filled = re.sub(r"\{[a-z_]+\}", "x", text.replace("{{", "_").replace("}}", "_"))
    if not _SUBJECT.fullmatch(filled):
        return "a subject: words parted by dots, without spaces, * and >, that do not begin with $ or _INBOX"
    return None
