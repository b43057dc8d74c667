"""
What went wrong with an exchange, in one of the contract's words and in a sentence.

Twisted hands over the cause wrapped in exceptions that hold lists of Failures; the most telling of them
is looked for.  Nothing received is repeated in the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from cubehook.net.agent import BadStatusError, Exchange, OverlongError
from cubehook.net.egress import BlockedError
from cubehook.net.journey import Phase
from cubehook.net.proxy import ProxyError
from cubehook.net.tls import UntrustedError
from cubehook.records import ErrorClass

# Parts of the reasons that OpenSSL gives.
_TLS_REASONS = (
    ("wrong version number", "the receiver does not speak TLS on this port"),
    ("packet length too long", "the receiver does not speak TLS on this port"),
    ("record layer failure", "the receiver does not speak TLS on this port"),
    ("certificate required", "the receiver asks for a client certificate (options.client_certificate)"),
    ("alert certificate expired", "the receiver says that our client certificate has expired"),
    ("alert certificate revoked", "the receiver says that our client certificate was revoked"),
    ("alert unknown ca", "the receiver does not know the authority of our client certificate"),
    ("alert bad certificate", "the receiver does not accept our client certificate, or asks for one"),
    ("alert unsupported certificate", "the receiver does not accept our kind of client certificate"),
    ("alert certificate unknown", "the receiver does not accept our client certificate"),
    ("alert access denied", "the receiver denies access with our client certificate"),
    ("unsupported protocol", "the receiver speaks no TLS of version 1.2 or later"),
    ("protocol version", "the receiver speaks no TLS of version 1.2 or later"),
    ("handshake failure", "the receiver and we share no cipher, or it asks for a client certificate"),
    ("unrecognized name", "the receiver does not know the host name it was asked for"),
)

_ASKED = "the receiver asked for a client certificate, and closed the connection (options.client_certificate)"
_NOT_HTTP = "the receiver's answer is not valid HTTP"

_CONNECTING: tuple[tuple[type[Exception], ErrorClass, str], ...] = (
    (error.DNSLookupError, ErrorClass.DNS, "the host name of {whom} does not resolve to an address"),
    (error.UnknownHostError, ErrorClass.DNS, "the host name of {whom} does not resolve to an address"),
    (error.TimeoutError, ErrorClass.TIMEOUT, "{whom} did not answer the attempt to connect"),
    (error.TCPTimedOutError, ErrorClass.TIMEOUT, "{whom} did not answer the attempt to connect"),
    (error.ConnectionRefusedError, ErrorClass.CONNECTION_REFUSED, "{whom} refused the connection"),
    (error.NoRouteError, ErrorClass.CONNECTION_REFUSED, "there is no route to {whom}"),
    (error.ConnectError, ErrorClass.CONNECTION_REFUSED, "no connection to {whom} could be made"),
)

_DOING = {
    Phase.RESOLVING: "resolving the host name of {whom}",
    Phase.CONNECTING: "connecting to {whom}",
    Phase.PROXY: "waiting for {whom} to connect",
    Phase.TLS: "negotiating TLS with {whom}",
    Phase.WAITING: "waiting for the answer of {whom}",
    Phase.READING: "reading the answer of {whom}",
}


def timed_out(seconds: float, exchange: Exchange) -> str:
    """What to say of an exchange that was not over in time: what it was doing, with whom, and since when."""
    journey = exchange.journey
    doing = _DOING[journey.phase].format(whom=_whom(exchange))
    where = f" at {journey.address}" if journey.address is not None else ""
    kept = ", over a connection kept from before" if journey.kept else ""
    return f"timed out after {seconds:g} s while {doing}{where}{kept} ({journey.told()})"


def explain(failure: Failure, exchange: Exchange) -> tuple[ErrorClass, str] | None:
    """
    Class and words for what the network, the proxy or the receiver did to `exchange`.

    None if it is nothing of theirs, but a bug.  Raises CancelledError if the exchange was cancelled.
    """
    causes = tuple(_causes(failure.value))
    if any(isinstance(cause, CancelledError | error.ConnectingCancelledError) for cause in causes):
        raise CancelledError
    # A handshake that failed is told together with the loss of its connection: the cause goes first.
    for cause in causes:
        if isinstance(cause, UntrustedError):
            return ErrorClass.TLS, str(cause)
        if isinstance(cause, OverlongError):
            return ErrorClass.HTTP, "the answer's headers have no end"
        if isinstance(cause, BadStatusError):
            return ErrorClass.HTTP, _NOT_HTTP
        if isinstance(cause, SSL.Error):
            return ErrorClass.TLS, _tls_words(cause)
        if isinstance(cause, BlockedError):
            return ErrorClass.BLOCKED, f"blocked by the egress policy: {cause}"
        if isinstance(cause, ProxyError):
            return cause.error_class, f"{_whom(exchange)} {cause}"
        for kind, name, words in _CONNECTING:
            if isinstance(cause, kind):
                where = f" at {exchange.journey.address}" if exchange.journey.address is not None else ""
                return name, words.format(whom=_whom(exchange)) + where
    for cause in causes:
        if isinstance(cause, error.ConnectionClosed):
            return _lost(exchange, isinstance(cause, error.ConnectionDone))
    if isinstance(failure.value, ResponseFailed):
        # All that is left is what the parser raised: no status line, bad lengths, bad chunks.
        return ErrorClass.HTTP, _NOT_HTTP
    return None


def explain_connection(failure: Failure, whom: str) -> tuple[ErrorClass, str] | None:
    """
    As `explain`, for what speaks another protocol than HTTP: why there was no connection to `whom`, or no
    trusted one.  None also for a connection that was lost, of which the protocol knows more.
    """
    causes = tuple(_causes(failure.value))
    if any(isinstance(cause, CancelledError | error.ConnectingCancelledError) for cause in causes):
        raise CancelledError
    for cause in causes:
        if isinstance(cause, UntrustedError):
            return ErrorClass.TLS, str(cause)
        if isinstance(cause, SSL.Error):
            return ErrorClass.TLS, _tls_words(cause)
        if isinstance(cause, BlockedError):
            return ErrorClass.BLOCKED, f"blocked by the egress policy: {cause}"
        for kind, name, words in _CONNECTING:
            if isinstance(cause, kind):
                return name, words.format(whom=whom)
    return None


def _whom(exchange: Exchange) -> str:
    """Whom an exchange has to do with in its phase."""
    if exchange.proxy is None:
        return "the receiver"
    if exchange.journey.phase in (Phase.RESOLVING, Phase.CONNECTING, Phase.PROXY):
        return f"the proxy {exchange.proxy}"
    return f"the receiver, through the proxy {exchange.proxy}"


def _causes(value: BaseException | None) -> Iterator[BaseException]:
    if value is None:
        return
    yield value
    for reason in getattr(value, "reasons", None) or ():
        yield from _causes(reason.value if isinstance(reason, Failure) else reason)


def _tls_words(cause: SSL.Error) -> str:
    # SSL.Error holds a list of (library, function, reason); its subclasses hold anything.
    entries = cause.args[0] if cause.args and isinstance(cause.args[0], list) else []
    told = "; ".join(entry[-1] for entry in entries)
    for reason, words in _TLS_REASONS:
        if reason in told:
            return f"{words} (OpenSSL: {told})"
    return f"TLS failed (OpenSSL: {told or type(cause).__name__})"


def _lost(exchange: Exchange, closed: bool) -> tuple[ErrorClass, str]:
    phase = exchange.journey.phase
    if phase is Phase.TLS:
        # Also how a receiver turns away a client that shows no certificate.
        return ErrorClass.TLS, "the receiver closed the connection while negotiating TLS"
    if exchange.asked_for_certificate and not exchange.journey.kept and phase is Phase.WAITING:
        # With TLS 1.3 the client is done before the receiver has judged it.
        return ErrorClass.TLS, _ASKED
    how = "the receiver closed the connection" if closed else "the connection was reset"
    if phase is Phase.READING:
        return ErrorClass.CONNECTION_LOST, f"{how} in the middle of the answer's body"
    whose = "it" if closed else "the receiver"
    kept = "; it was kept from before" if exchange.journey.kept else ""
    return ErrorClass.CONNECTION_LOST, f"{how} before {whose} answered{kept}"
