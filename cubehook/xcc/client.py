"""
What we ask of a gateway: SOAP requests to its `provider_url`, and what is wrong when no good answer comes.

A gateway allows few connections (`ip http max-connections` 5) and closes them as it likes: one request is
under way at a time, each on a connection of its own, and one that met a closed connection is sent once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from cubehook import __version__
from cubehook.config import Cube
from cubehook.net.certificates import TlsFileError
from cubehook.net.tls import Tls, TlsOptions, UntrustedError, is_old
from cubehook.text import printable
from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc
from cubehook.xcc.tracing import NO_TAPS, Taps

APPLICATION_NAME = "cubehook"

CONNECTION_EVENTS = (
    "CREATED",
    "REDIRECTED",
    "ALERTING",
    "CONNECTED",
    "TRANSFERRED",
    "CALL_DELIVERY",
    "DISCONNECTED",
    "HANDOFFLEAVE",
    "HANDOFFJOIN",
)
"""Every event that only tells.  AUTHORIZE_CALL and ADDRESS_ANALYZE would have calls wait for us."""

BLOCKING_TIMEOUT = 1
"""Seconds after which a gateway that asks us all the same goes on with the call."""

ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 5.0
MAX_ANSWER = 1 << 20

_HEADERS = Headers({"Content-Type": ["application/soap+xml"], "User-Agent": [f"cubehook/{__version__}"]})

_PROVIDER_URL = (
    "provider_url must be the gateway's own, http://GATEWAY:8090/cisco_xcc, or in secure mode "
    "https://GATEWAY:443/cisco_xcc."
)
_FEW_CONNECTIONS = (
    "It may be busy, or the few connections it allows may all be taken: see `show wsapi http server`, and "
    "set `ip http max-connections 100`."
)

_OLD_TLS = (
    "the router speaks no TLS of version {minimum} or later, or only ciphers of its age. Update it, set "
    "`ip http tls-version TLSv1.2` there, or, if neither can be, let this cube have an older tls_minimum"
)
# What OpenSSL says; the first that fits is told.
_TLS_REASONS = (
    ("protocol version", _OLD_TLS),
    ("unsupported protocol", _OLD_TLS),
    ("handshake failure", _OLD_TLS),
    ("too small", _OLD_TLS),
    ("legacy renegotiation", _OLD_TLS),
    ("certificate required", "the router wants a certificate of ours: client_certificate of this cube"),
    (
        "wrong version number",
        "no TLS is spoken there: provider_url has the port of plain HTTP, or is no router's",
    ),
    (
        "unknown ca",
        "the router does not know the authority of our client_certificate: give it a trustpoint for it",
    ),
)


class GatewayError(Exception):
    """
    No usable answer came; `str()` of it says what happened and what to check, fit to be shown.

    `result` is one of a closed set of words, for metrics.
    """

    result = "failed"

    def __init__(self, words: str, result: str | None = None) -> None:
        super().__init__(words)
        if result is not None:
            self.result = result


class UnreachableError(GatewayError):
    """No connection could be made; `result` tells apart why."""

    result = "unreachable"


class AnswerTimeoutError(GatewayError):
    """The gateway was too slow to take the connection or to answer."""

    result = "timeout"


class ClosedError(GatewayError):
    """The gateway closed the connection before the answer was whole, twice."""

    result = "connection_lost"


class TlsError(GatewayError):
    """The connection's encryption could not be agreed on, or the certificate is not to be trusted."""

    result = "tls"


class StatusError(GatewayError):
    """The answer was an HTTP status other than 2xx, and no SOAP Fault."""

    result = "http"


class NotXccError(GatewayError):
    """The answer was not the XCC message that the request asks for."""

    result = "not_soap"


class FaultError(GatewayError):
    """The gateway understood, and refused."""

    result = "rejected"

    def __init__(self, words: str, fault: xcc.Fault) -> None:
        super().__init__(words)
        self.fault = fault


def gateway_agent(reactor: IReactorTime, trust: GatewayTrust) -> IAgent:
    """An agent for requests to a gateway: no kept connections, TLS as `trust` has it, no egress policy."""
    pool = HTTPConnectionPool(reactor, persistent=False)
    return Agent(reactor, trust, connectTimeout=CONNECT_SECONDS, pool=pool)


@implementer(IPolicyForHTTPS)
class GatewayTrust:
    """
    Which certificates are taken for those of a cube's gateway, and what it is shown; files are in `folder`.

    They are read for the first connection, and again when they change; TlsFileError where they are of no use.
    """

    _log = Logger()

    def __init__(self, cube: Cube, folder: Path) -> None:
        self._cube = cube
        self._folder = folder
        self._tls: Tls | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        if self._tls is None:
            self._tls = self._made()
        return self._tls.creator(hostname.decode("ascii"))

    def _made(self) -> Tls:
        cube = self._cube
        files = TlsOptions(
            ca_file=cube.ca_file, client_certificate=cube.client_certificate, client_key=cube.client_key
        )
        return Tls(
            files,
            self._folder,
            f"cube {cube.id}",
            prefix=f"cubes.{cube.id}.",
            peer="gateway",
            pins=cube.pins,
            minimum=cube.tls_minimum,
        )

    @property
    def ends(self) -> datetime | None:
        """When the certificate ends that the gateway showed last; None if it showed none, or is pinned."""
        return None if self._tls is None else self._tls.ends

    def reload(self) -> str | None:
        """
        Read the files again, changed or not; in words, why what was read before stays in use.

        None if they can be used, or were not needed yet.
        """
        if self._tls is None:
            return None
        try:
            made = self._made()
        except TlsFileError as error:
            return f"{error}; what was read before stays in use"
        made.ends = self._tls.ends
        self._tls = made
        return None

    def warn(self) -> None:
        """Say in the log what is unsafe about this."""
        cube = self._cube
        if cube.enabled and is_old(cube.tls_minimum):
            self._log.warn(
                "Cube {cube}: TLS {minimum} and its weak ciphers are allowed (cubes.{cube}.tls_minimum): "
                "whoever is in between may be able to read and change what is said to the gateway. Update "
                "the router, and take that setting away",
                cube=cube.id,
                minimum=cube.tls_minimum,
            )


class GatewayClient:
    """
    Sends requests to one cube's gateway, one after another.

    Every request raises a `GatewayError` unless it got the answer it asked for, at the latest `timeout`
    seconds after it was sent; requests wait for each other before that.  The cube's tap among `taps`, if
    there is one, is told what is sent and received.  `epoch` begins the ids of its messages.
    """

    def __init__(
        self,
        cube: Cube,
        agent: IAgent,
        reactor: IReactorTime,
        timeout: float = ANSWER_SECONDS,
        taps: Taps = NO_TAPS,
        epoch: int = 0,
    ) -> None:
        self._cube = cube
        self._agent = agent
        self._reactor = reactor
        self._timeout = timeout
        self._taps = taps
        self._lock = DeferredLock()
        self._epoch = f"{epoch:X}"
        self._count = count(1)
        parts = urlsplit(cube.provider_url)
        self._where = parts.netloc.rpartition("@")[2]
        self._host = parts.hostname or self._where

    async def register(self) -> xcc.ResponseXccRegister:
        """Subscribe to the calls of the gateway; the answer has a registration id."""
        cube = self._cube
        request = xcc.RequestXccRegister(
            msg_header=xcc.MsgHeader(transaction_id=self._transaction_id()),
            application_data=xcc.ApplicationData(url=cube.application_url, name=APPLICATION_NAME),
            provider_data=xcc.ProviderData(url=cube.provider_url),
            connection_events_filter=CONNECTION_EVENTS,
            blocking_event_timeout_sec=BLOCKING_TIMEOUT,
            blocking_timeout_handle="CONTINUE_PROCESSING",
        )
        answer = await self._ask(request)
        if isinstance(answer, xcc.Fault):
            raise FaultError(
                f"The gateway refused to register us: {_fault_words(answer)}. Compare on the router: "
                f"`remote-url` under `provider xcc` must equal our application URL {cube.application_url} "
                "to the letter (host, port, path, trailing slash), and `no shutdown` must stand there.",
                answer,
            )
        if not isinstance(answer, xcc.ResponseXccRegister):
            raise self._unexpected(answer, "a request to register")
        if not answer.msg_header.registration_id:
            raise NotXccError(f"{self._where} answered a request to register without a registrationID.")
        return answer

    async def unregister(self, registration_id: str) -> None:
        """End a registration."""
        header = xcc.MsgHeader(transaction_id=self._transaction_id(), registration_id=registration_id)
        answer = await self._ask(xcc.RequestXccUnRegister(msg_header=header))
        if isinstance(answer, xcc.Fault):
            raise FaultError(f"The gateway refused to unregister us: {_fault_words(answer)}.", answer)
        if not isinstance(answer, xcc.ResponseXccUnRegister):
            raise self._unexpected(answer, "a request to unregister")

    def _transaction_id(self) -> str:
        return f"{self._epoch}:{next(self._count)}"

    def _unexpected(self, answer: codec.Message, asked: str) -> NotXccError:
        return NotXccError(f"{self._where} answered {asked} with {codec.name(answer)}.")

    async def _ask(self, request: codec.Message) -> codec.Message:
        body = codec.write(request)
        await self._lock.acquire()
        try:
            exchange = Deferred.fromCoroutine(self._exchange(body))
            return await exchange.addTimeout(self._timeout, self._reactor, self._too_late)
        finally:
            self._lock.release()

    def _too_late(self, _: object, timeout: float) -> codec.Message:
        raise AnswerTimeoutError(f"{self._where} did not answer within {timeout:g} s. {_FEW_CONNECTIONS}")

    async def _exchange(self, body: bytes) -> codec.Message:
        try:
            try:
                response, answer = await self._post(body)
            except Exception as error:
                if not isinstance(_cause(error), ConnectionClosed):
                    raise
                response, answer = await self._post(body)
        except GatewayError:
            raise
        except Exception as error:
            raise self._explain(_cause(error)) from error
        return self._read(response, answer)

    async def _post(self, body: bytes) -> tuple[IResponse, bytes]:
        tap = self._taps.get(self._cube.id)
        if tap is None:
            return await self._send(body)
        exchange = tap.sent(self._where, self._request_head(body), body)
        try:
            response, answer = await self._send(body)
        except Exception as error:
            cause = _cause(error)
            late = isinstance(cause, CancelledError)
            tap.failed(
                exchange, "it was no longer waited for" if late else str(cause) or type(cause).__name__
            )
            raise
        tap.heard(exchange, self._where, _response_head(response), answer)
        return response, answer

    async def _send(self, body: bytes) -> tuple[IResponse, bytes]:
        # A client of its own for each request: nothing is kept between them, cookies included.
        response = await HTTPClient(self._agent).request(
            "POST",
            self._cube.provider_url,
            headers=_HEADERS.copy(),
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,  # type: ignore[arg-type]  # used as a clock only
        )
        body_received = _Body(self._where)
        response.deliverBody(body_received)
        return response, await body_received.whole

    def _request_head(self, body: bytes) -> list[str]:
        """What treq and the agent make of it."""
        parts = urlsplit(self._cube.provider_url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return [
            f"POST {path} HTTP/1.1",
            f"Host: {self._where}",
            *_header_lines(_HEADERS),
            f"Content-Length: {len(body)}",
            "Accept-Encoding: gzip",
            "Connection: close",
        ]

    def _read(self, response: IResponse, answer: bytes) -> codec.Message:
        status = response.code
        message: codec.Message | None = None
        error: soap.SoapError | None = None
        try:
            message = codec.read(answer)
        except soap.SoapError as caught:
            error = caught
        if isinstance(message, xcc.Fault):
            # SOAP sends faults with status 400 or 500, and some routers with 200.
            return message
        if not 200 <= status < 300:
            raise StatusError(self._status_words(response))
        if message is None:
            raise NotXccError(self._foreign_words(answer, error))
        return message

    def _status_words(self, response: IResponse) -> str:
        status = response.code
        where = self._where
        if 300 <= status < 400:
            location = (response.headers.getRawHeaders(b"location") or [b""])[0].decode("latin-1")
            return (
                f"{where} answered with a redirect ({status}) to {printable(location) or 'nowhere'}, which "
                "is not followed: a web page or login stands where the XCC provider should. "
                f"{_PROVIDER_URL}"
            )
        if status in (401, 403):
            return (
                f"{where} answered {status}: it wants a login or does not let us in. Check `ip http "
                "access-class` on the router and what stands between us."
            )
        if status == 404:
            path = urlsplit(self._cube.provider_url).path or "/"
            return (
                f"{where} answered 404: it has no {path}. {_PROVIDER_URL} Check also that `uc wsapi` (or "
                "`uc secure-wsapi`) and `provider xcc` are configured, and that `ip http "
                "active-session-modules` (or `secure-active-session-modules`) is not none."
            )
        return f"{where} answered with HTTP status {status} and no SOAP Fault. See `show wsapi http server`."

    def _foreign_words(self, answer: bytes, error: soap.SoapError | None) -> str:
        if not answer.strip():
            return f"{self._where} answered with nothing. {_PROVIDER_URL}"
        if answer.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            return (
                f"{self._where} answered with a web page, perhaps a login, instead of SOAP. {_PROVIDER_URL}"
            )
        return f"{self._where} answered with something other than SOAP: {printable(str(error))}"

    def _explain(self, cause: BaseException) -> Exception:
        where = self._where
        if isinstance(cause, CancelledError):
            return cause
        if isinstance(cause, DNSLookupError):
            host = printable(self._host)
            return UnreachableError(f"The name {host} in provider_url was not found in DNS.", "dns")
        if isinstance(cause, ConnectionRefusedError):
            if self._cube.provider_url.startswith("https:"):
                serving, port = (
                    "`ip http secure-server` and `uc secure-wsapi`",
                    "443, or `ip http secure-port`",
                )
            else:
                serving, port = "`ip http server` and `uc wsapi`", "8090"
            return UnreachableError(
                f"{where} refused the connection. Check {serving} on the router, and that provider_url has "
                f"its address and port ({port}).",
                "connection_refused",
            )
        if isinstance(cause, TimeoutError | TCPTimedOutError):
            return AnswerTimeoutError(
                f"{where} did not take the connection within {CONNECT_SECONDS:g} s. Check that the router "
                "is up, the route to it, and the firewall on the way."
            )
        if isinstance(cause, TlsFileError):
            return TlsError(f"No TLS connection to {where} can be made: {printable(str(cause), 1000)}.")
        if isinstance(cause, UntrustedError):
            return TlsError(
                f"No trusted TLS connection to {where}: {printable(str(cause), 1000)}. {self._pin_words()}"
            )
        if isinstance(cause, SSL.Error):
            return TlsError(f"No TLS connection to {where}: {self._tls_words(cause)}")
        if isinstance(cause, NoRouteError | ConnectError):
            return UnreachableError(
                f"No connection to {where}: {printable(str(cause))} Check provider_url, the route to the "
                "router, and the firewall on the way."
            )
        if isinstance(cause, ConnectionClosed):
            return ClosedError(
                f"{where} closed the connection without a whole answer, twice. {_FEW_CONNECTIONS}"
            )
        return NotXccError(
            f"{where} gave no HTTP answer that can be understood ({type(cause).__name__}: "
            f"{printable(str(cause))}). {_PROVIDER_URL}"
        )

    def _pin_words(self) -> str:
        cube = self._cube
        if cube.pins:
            return (
                "If the router was given another certificate, let cubehook know it by pins of this cube: "
                f"`cubehook pin {cube.id}` shows the certificate and the line to write."
            )
        return (
            "Check the router's certificate (names, dates, issuer), and name its authority in ca_file; "
            f"one that the router has signed itself must be pinned: see `cubehook pin {cube.id}`."
        )

    def _tls_words(self, error: SSL.Error) -> str:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        told = printable(", ".join(reason[-1] for reason in reasons)) or "the connection ended"
        for reason, words in _TLS_REASONS:
            if reason in told:
                return f"{words.format(minimum=self._cube.tls_minimum)} (OpenSSL: {told})."
        return f"{told}. Check that `uc secure-wsapi` and `ip http secure-server` listen there."


class _Body(Protocol):
    """Collects a response's body; `whole` fails where that is cut off, or longer than `MAX_ANSWER`."""

    def __init__(self, where: str) -> None:
        self.whole: Deferred[bytes] = Deferred(self._cancelled)
        self._where = where
        self._received = BytesIO()

    def dataReceived(self, data: bytes) -> None:
        self._received.write(data)
        if self._received.tell() > MAX_ANSWER and not self.whole.called:
            self.whole.errback(NotXccError(f"{self._where} answered with more than 1 MiB."))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        # Without a Content-Length the end of the connection is the end of the body.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(self._received.getvalue())
        else:
            self.whole.errback(reason)

    def _cancelled(self, whole: Deferred[bytes]) -> None:
        whole.errback(CancelledError())
        self._close()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _response_head(response: IResponse) -> list[str]:
    protocol, major, minor = response.version
    phrase = response.phrase.decode("latin-1")
    status = f"{protocol.decode('latin-1')}/{major}.{minor} {response.code} {phrase}"
    return [status, *_header_lines(response.headers)]


def _header_lines(headers: Headers) -> list[str]:
    return [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}"
        for name, values in headers.getAllRawHeaders()
        for value in values
    ]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error of Twisted's HTTP client wraps, innermost first, then the error itself."""
    for reason in getattr(error, "reasons", None) or ():
        yield from _causes(reason.value)
    yield error


def _cause(error: BaseException) -> BaseException:
    """The one that tells most: the first that is not just the connection's end."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, CancelledError | SSL.Error | UntrustedError | TlsFileError):
            return cause
    return causes[0]


def _fault_words(fault: xcc.Fault) -> str:
    """A Fault's reason and what its detail adds, quoted."""
    words = [f'"{printable(fault.reason)}"']
    for name in ("errorCode", "text", "errorXMLMsg", "errorXMLDetail", "errorXMLTag"):
        value = fault.detail.get(name)
        if value and value != fault.reason:
            words.append(f'{name} "{printable(value)}"')
    return ", ".join(words)
