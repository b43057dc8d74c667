"""Delivery over HTTP, signed as Standard Webhooks asks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.config_rules import header_name, header_value, no_proxy, proxy_url
from cubehook.delivery.schedule import parse_retry_after
from cubehook.delivery.signing import decode_secret, sign
from cubehook.events import Micros
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.net.agent import Exchange, WebhookAgent
from cubehook.net.body import BodyReader, first_line
from cubehook.net.failures import explain, timed_out
from cubehook.net.tls import TlsOptions, check_tls
from cubehook.net.urls import MASK, masked_url
from cubehook.records import ErrorClass
from cubehook.text import printable

METHODS: Final = ("POST", "PUT", "PATCH")

# What belongs to the connection or says what the body is; a webhook may not set it.
_RESERVED = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_URL_TEXT = re.compile(r"[!-~]*")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PREFIXES = {
    "webhook-": "no webhook-* header: they carry the signature",
    "cubehook-": "no cubehook-* header: they tell of the delivery",
}
_HOLDING = frozenset((429, 502, 503, 504))
_LOGGED_HEADERS = 16 << 10
"""Characters of response headers that are kept."""


class HttpOptions(TlsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `options` of a webhook over HTTP."""

    proxy: Annotated[
        str | None, msgspec.Meta(description='the URL of an HTTP proxy, "" for none; else that of [egress]')
    ] = None
    no_proxy: Annotated[
        tuple[str, ...] | None, msgspec.Meta(description="whom to reach without it; else that of [egress]")
    ] = None


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
        return problems + check_tls(options) + _check_proxy(options)

    def create(self, webhook: Webhook, options: HttpOptions, context: ITransportContext) -> ITransport:
        return HttpTransport(webhook, options, context)


@implementer(ITransport)
class HttpTransport:
    """
    Sends each event as one request, and judges the answer.

    What is the same for every request is prepared in the constructor: this is a busy path.
    """

    def __init__(self, webhook: Webhook, options: HttpOptions, context: ITransportContext) -> None:
        self._context = context
        self._options = options
        self._method = webhook.method
        self._shown_url = masked_url(webhook.url)
        self._url = _WireUrl.of(webhook.url)
        self._secrets = [decode_secret(secret) for secret in context.secrets]
        self._agent: WebhookAgent | None = None
        own = {name.lower(): (name, value) for name, value in webhook.headers.items()}
        _, self._content_type = own.pop("content-type", ("", ""))
        _, user_agent = own.pop("user-agent", ("", f"cubehook/{context.version}"))
        # Left to itself, Twisted makes the Host header anew, and a copy of the others, each time.
        self._fixed = {"Host": _host(self._url), "User-Agent": user_agent}
        self._own = {name: value.encode("latin-1") for name, value in own.values()}
        self._masked = dict.fromkeys(self._own, MASK)

    async def start(self) -> None:
        options = self._options
        tls = self._context.tls(options)
        self._agent = self._context.agent(tls, proxy=options.proxy, no_proxy=options.no_proxy)

    async def stop(self) -> None:
        if self._agent is not None:
            await self._agent.close()

    async def deliver(self, outbound: Outbound) -> Sent:
        if self._agent is None:
            raise RuntimeError("the transport was not started")
        shown = self._request_headers(outbound)
        headers = Headers()
        for name, value in (shown | self._own).items():
            headers.addRawHeader(name, value)
        reactor = self._context.reactor
        exchange = self._agent.exchange()
        deadline = _Deadline(reactor, outbound.timeout, exchange)
        response: IResponse | None = None
        reader: BodyReader | None = None
        problem = None
        try:
            response = await deadline.bound(
                HTTPClient(exchange, _NO_COOKIES).request(
                    self._method,
                    self._url,
                    headers=headers,
                    data=_Whole(outbound.body),
                    cookies=_NO_COOKIES,
                    allow_redirects=False,
                    unbuffered=True,
                    reactor=reactor,
                )
            )
            reader = BodyReader(response, exchange.encoding, exchange.abort)
            await deadline.bound(reader.done)
        except Exception:
            problem = deadline.explain(Failure())
        finally:
            deadline.cancel()
        phases = exchange.journey.phases()
        if response is None:
            verdict = _UNANSWERED
        else:
            now = outbound.at + int(deadline.elapsed() * 1_000_000)
            verdict = _judge(response, now)
        error_class, error = problem or (verdict.error_class, verdict.error)
        body = reader.content.decode("utf-8", "replace") if reader is not None else None
        if error is not None and problem is None and body:
            line = first_line(body)
            error = f"{error}: {line}" if line else error
        return Sent(
            delivered=verdict.delivered and problem is None,
            gone=verdict.gone,
            hold=verdict.hold,
            phases=phases,
            note=exchange.note,
            method=self._method,
            url=self._shown_url,
            request_headers=shown | self._masked,
            status=response.code if response is not None else None,
            response_headers=_response_headers(response, exchange.encoding) if response is not None else {},
            response_body=body,
            remote_address=exchange.journey.address,
            error_class=error_class,
            error=error,
        )

    def _request_headers(self, outbound: Outbound) -> dict[str, str]:
        """All but the webhook's own."""
        timestamp = outbound.at // 1_000_000
        headers = {
            **self._fixed,
            "Content-Type": self._content_type or outbound.content_type,
            "webhook-id": outbound.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secrets, outbound.id, timestamp, outbound.body),
        }
        if outbound.redelivery:
            headers["cubehook-redelivery"] = "true"
        return headers


class _WireUrl(EncodedURL):
    """
    A URL that is sent as it was written, which `check` made sure it can be.

    treq has that form made anew for each request, at some cost, and fails for IPv6 addresses.
    """

    _written = ""

    @classmethod
    def of(cls, text: str) -> _WireUrl:
        url = cls.from_text(text)
        assert isinstance(url, cls)
        url._written = text
        return url

    def to_uri(self) -> _WireUrl:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._written


class _NoCookies(IndexableCookieJar):
    """
    Keeps no cookie and sends none: what one receiver sets is nobody's business, not even its own.

    Always empty, so one does for all requests; treq would make two jars for each.
    """

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass


_NO_COOKIES: Final = _NoCookies()


class _Deadline:
    """One limit in time for all that an exchange waits for, one thing after the other."""

    def __init__(self, reactor: Any, seconds: float, exchange: Exchange) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._exchange = exchange
        self._started = reactor.seconds()
        self._missed: str | None = None
        self._call = reactor.callLater(seconds, self._expire)

    def bound(self, awaited: Deferred[Any]) -> Deferred[Any]:
        """`awaited`, which is cancelled when time is up."""
        self._awaited = awaited
        return awaited

    def elapsed(self) -> float:
        elapsed: float = self._reactor.seconds() - self._started
        return elapsed

    def explain(self, failure: Failure) -> tuple[ErrorClass, str]:
        """Class and words for what ended the exchange; raises what was not the receiver's doing."""
        if self._missed is not None:
            return ErrorClass.TIMEOUT, self._missed
        explained = explain(failure, self._exchange)
        if explained is None:
            failure.raiseException()
        return explained

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _expire(self) -> None:
        self._missed = timed_out(self._seconds, self._exchange)
        self._awaited.cancel()


@implementer(IBodyProducer)
class _Whole:
    """A request's body, written at once: events are small."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class _Verdict(msgspec.Struct, frozen=True):
    """What an answer's status and headers say of the event and of the receiver."""

    delivered: bool = False
    gone: bool = False
    hold: float | None = None
    error_class: ErrorClass | None = None
    error: str | None = None


_UNANSWERED = _Verdict()
_DELIVERED = _Verdict(delivered=True)


def _judge(response: IResponse, now: Micros) -> _Verdict:
    status: int = response.code
    if 200 <= status < 300:
        return _DELIVERED
    hold = None
    asked = response.headers.getRawHeaders(b"retry-after")
    if asked:
        hold = parse_retry_after(asked[-1].decode("latin-1"), now)
    if hold is None and status in _HOLDING:
        hold = 0.0
    error = f"answered {_status(status)}"
    if 300 <= status < 400:
        location = response.headers.getRawHeaders(b"location")
        to = f" to {printable(masked_url(location[0].decode('utf-8', 'replace')))}" if location else ""
        error = f"answered {status}{to}; redirects are not followed"
    return _Verdict(gone=status == 410, hold=hold, error_class=ErrorClass.HTTP, error=error)


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _response_headers(response: IResponse, encoding: bytes) -> dict[str, str]:
    """
    The headers, those given several times joined, up to a limit: the receiver decides how many.

    A redirect usually repeats what was asked for, and is masked as that is.
    """
    shown = {}
    room = _LOGGED_HEADERS
    received: Iterable[tuple[bytes, Iterable[bytes]]] = response.headers.getAllRawHeaders()
    for name, values in received:
        # Taken off by the exchange; treq leaves an empty one.
        if name == b"Content-Encoding":
            continue
        value = b", ".join(values)
        room -= len(name) + len(value)
        if room < 0:
            break
        text = value.decode("utf-8", "replace")
        shown[name.decode("latin-1")] = masked_url(text) if name == b"Location" else text
    if encoding:
        shown["Content-Encoding"] = encoding[:100].decode("latin-1")
    return shown


def _host(url: EncodedURL) -> str:
    """The Host header for `url` (RFC 9110, section 7.2)."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return host if url.port == {"http": 80, "https": 443}[url.scheme] else f"{host}:{url.port}"


def _check_proxy(options: HttpOptions) -> list[tuple[str, str]]:
    problems = []
    try:
        proxy_url(options.proxy or "")
    except ValueError as error:
        problems.append(("options.proxy", f"the http:// URL of a proxy, or an empty text ({error})"))
    for number, entry in enumerate(options.no_proxy or (), 1):
        try:
            no_proxy(entry)
        except ValueError as error:
            expected = "hosts, domains, addresses, networks or *"
            told = str(error) or "it is none of these"
            problems.append(("options.no_proxy", f"{expected}; of entry {number}: {told}"))
    return problems


def _expected_url(text: str) -> str | None:
    """What a receiver's URL must be, if `text` is not."""
    try:
        parts = urlsplit(text)
        port = parts.port
        EncodedURL.from_text(text)
    except ValueError:
        return "an http or https URL"
    if not _URL_TEXT.fullmatch(text):
        return "a URL of printable ASCII: a host in its xn-- form, other characters as %XX"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "an http or https URL with a host, such as https://crm.example.com/calls"
    if not _is_host(parts.hostname):
        return "a URL whose host is an address, or a name of letters, digits, - and _"
    if port == 0:
        return "a URL whose port is not 0"
    if parts.username is not None:
        return "a URL without user and password; an Authorization header may carry them"
    return None


def _is_host(host: str) -> bool:
    """Whether `host` can be looked up at all: what cannot would be taken for a bug of ours."""
    return isIPv6Address(host) or (
        len(host) <= 253 and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))
    )


def _expected_header(name: str, value: str) -> str | None:
    """What a webhook's own header must be, if this one is not."""
    lowered = name.lower()
    for prefix, expected in _PREFIXES.items():
        if lowered.startswith(prefix):
            return expected
    if lowered in _RESERVED:
        return "a header that cubehook does not set itself"
    try:
        header_name(name)
    except ValueError:
        return "the name of an HTTP header"
    try:
        header_value(value)
    except ValueError as error:
        return f"the value of an HTTP header ({error})"
    return None
