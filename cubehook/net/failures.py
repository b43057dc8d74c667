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

from cubehook.net.agent import BadStatusError, OverlongError, Phase
from cubehook.net.egress import BlockedError
from cubehook.net.tls import UntrustedError
from cubehook.records import ErrorClass

# Parts of the reasons that OpenSSL gives.
_TLS_REASONS = (
    ("wrong version number", "the receiver does not speak TLS on this port"),
    ("packet length too long", "the receiver does not speak TLS on this port"),
    ("record layer failure", "the receiver does not speak TLS on this port"),
    ("certificate required", "the receiver asks for a client certificate"),
    ("unsupported protocol", "the receiver speaks no TLS of version 1.2 or later"),
    ("protocol version", "the receiver speaks no TLS of version 1.2 or later"),
    ("handshake failure", "the receiver and we share no cipher, or it asks for a client certificate"),
    ("unrecognized name", "the receiver does not know the host name it was asked for"),
)

_NOT_HTTP = "the receiver's answer is not valid HTTP"

_CONNECTING: tuple[tuple[type[Exception], ErrorClass, str], ...] = (
    (error.DNSLookupError, ErrorClass.DNS, "the receiver's host name does not resolve to an address"),
    (error.UnknownHostError, ErrorClass.DNS, "the receiver's host name does not resolve to an address"),
    (error.TimeoutError, ErrorClass.TIMEOUT, "the receiver did not answer the attempt to connect"),
    (error.TCPTimedOutError, ErrorClass.TIMEOUT, "the receiver did not answer the attempt to connect"),
    (error.ConnectionRefusedError, ErrorClass.CONNECTION_REFUSED, "the receiver refused the connection"),
    (error.NoRouteError, ErrorClass.CONNECTION_REFUSED, "there is no route to the receiver"),
    (error.ConnectError, ErrorClass.CONNECTION_REFUSED, "no connection to the receiver could be made"),
)


def explain(failure: Failure, phase: Phase) -> tuple[ErrorClass, str] | None:
    """
    Class and words for what the network or the receiver did to an exchange that had come to `phase`.

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
        for kind, name, words in _CONNECTING:
            if isinstance(cause, kind):
                return name, words
    if any(isinstance(cause, error.ConnectionClosed) for cause in causes):
        return _lost(phase)
    if isinstance(failure.value, ResponseFailed):
        # All that is left is what the parser raised: no status line, bad lengths, bad chunks.
        return ErrorClass.HTTP, _NOT_HTTP
    return None


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


def _lost(phase: Phase) -> tuple[ErrorClass, str]:
    if phase is Phase.HANDSHAKE:
        # Also how a receiver turns away a client that shows no certificate.
        return ErrorClass.TLS, "the receiver closed the connection while negotiating TLS"
    if phase is Phase.READING:
        return ErrorClass.CONNECTION_LOST, "the connection was lost in the middle of the answer's body"
    return ErrorClass.CONNECTION_LOST, "the connection was lost before the receiver answered"
