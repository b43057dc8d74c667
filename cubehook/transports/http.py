"""Delivery over HTTP, signed as Standard Webhooks asks."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit

import msgspec
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.config_rules import header_name, header_value
from cubehook.delivery.schedule import parse_retry_after
from cubehook.delivery.signing import decode_secret, sign
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.net.agent import Exchange, WebhookAgent, tls_context
from cubehook.net.body import Body, read_body
from cubehook.net.failures import explain
from cubehook.records import ErrorClass
from cubehook.text import printable

METHODS: Final = ("POST", "PUT", "PATCH")

# What belongs to the connection, to the signature or to us; a webhook may not set it.
_RESERVED = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# What a webhook may set that holds no secret, and is shown.
_SHOWN = frozenset(("content-type", "user-agent"))
_MASK = "***"
_HOLDING = frozenset((429, 502, 503, 504))
_MAX_LOGGED_HEADERS = 16 << 10
_MICROS = 1_000_000


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The `options` of a webhook over HTTP.

    `ca_file` (PEM, relative to the state folder) holds the authorities that may vouch for the receiver,
    in place of those the platform trusts.  A certificate is always verified.
    """

    ca_file: str | None = None


@implementer(ITransportPlugin)
class HttpPlugin:
    """Announces the transport `http`."""

    name = "http"
    description = "An HTTP request for each event, signed as Standard Webhooks asks"
    options = HttpOptions

    def check(self, webhook: Webhook, options: HttpOptions) -> list[tuple[str, str]]:
        problems = []
        expected = _expected_url(webhook.url)
        if expected is not None:
            problems.append(("url", expected))
        if webhook.method not in METHODS:
            problems.append(("method", f"one of {', '.join(METHODS)}"))
        for name, value in webhook.headers.items():
            expected = _expected_header(name, value)
            if expected is not None:
                problems.append((f"headers.{name}", expected))
        return problems

    def create(self, webhook: Webhook, options: HttpOptions, context: ITransportContext) -> ITransport:
        return HttpTransport(webhook, options, context)


@implementer(ITransport)
class HttpTransport:
    """
    Sends each event as one request.

    What is the same for every request is prepared in the constructor: this is the service's busiest path.
    """

    def __init__(self, webhook: Webhook, options: HttpOptions, context: ITransportContext) -> None:
        self._context = context
        self._ca_file = options.ca_file
        self._method = webhook.method
        self._shown_url = webhook.url
        self._url = EncodedURL.from_text(webhook.url).to_uri()
        self._secrets = [decode_secret(secret) for secret in context.secrets]
        self._agent: WebhookAgent | None = None
        self._set_headers(webhook)

    def _set_headers(self, webhook: Webhook) -> None:
        own = {name.lower(): (name, value) for name, value in webhook.headers.items()}
        self._content_type = own.pop("content-type", ("", None))[1]
        agent = own.pop("user-agent", ("", f"cubehook/{self._context.version}"))[1]
        # Twisted would make the Host header for each request anew.
        self._fixed = [("Host", _host(self._url)), ("User-Agent", agent)]
        self._own = list(own.values())
        self._shown_own = {name: _MASK for name, _ in self._own}

    async def start(self) -> None:
        if self._ca_file is None:
            self._agent = self._context.agent()
            return
        path = self._context.state_dir / self._ca_file
        context = tls_context(_trust_root(path))
        self._agent = self._context.agent(lambda: context)

    async def stop(self) -> None:
        if self._agent is not None:
            await self._agent.close()

    async def deliver(self, outbound: Outbound) -> Sent:
        assert self._agent is not None, "deliver before start"
        timestamp = outbound.at // _MICROS
        headers = [
            *self._fixed,
            ("Content-Type", self._content_type or outbound.content_type),
            ("webhook-id", outbound.id),
            ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", sign(self._secrets, outbound.id, timestamp, outbound.body)),
        ]
        exchange = self._agent.exchange()
        # A client of its own, so that no cookie outlives the request.
        client = HTTPClient(exchange)
        deadline = _Deadline(self._context.reactor, outbound.timeout, exchange)
        response: IResponse | None = None
        try:
            response = await deadline.bound(
                client.request(
                    self._method,
                    self._url,
                    headers=_raw(headers, self._own),
                    data=_BytesProducer(outbound.body),
                    allow_redirects=False,
                    unbuffered=True,
                    reactor=self._context.reactor,
                )
            )
            body = await deadline.bound(read_body(response, exchange.encoding, exchange.abort))
        except Exception:
            outcome = deadline.explain(Failure())
            body = EMPTY
        else:
            outcome = None
        finally:
            deadline.cancel()
        # ...
