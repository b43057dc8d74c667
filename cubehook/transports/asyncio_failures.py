"""What asyncio says of a connection that failed, in one of the contract's words and in a sentence."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator

from cubehook.net.egress import BlockedError
from cubehook.records import ErrorClass
from cubehook.text import printable

_NO_ROUTE = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL))


def explain_asyncio(error: BaseException) -> tuple[ErrorClass, str] | None:
    """
    Class and words for what kept us from a connection to the broker, or ended one.

    Libraries wrap what happened in errors of their own; the cause is looked for.  None if nothing is found
    that the network or the broker did.
    """
    causes = list(_causes(error))
    for cause in causes:
        explained = _explain(cause)
        if explained is not None:
            return explained
    return None


def _explain(cause: BaseException) -> tuple[ErrorClass, str] | None:
    if isinstance(cause, BlockedError):
        return ErrorClass.BLOCKED, f"blocked by the egress policy: {cause}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ErrorClass.TLS, f"the broker's certificate is not trusted: {_verification(cause)}"
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None) or str(cause)
        return ErrorClass.TLS, f"TLS failed ({printable(reason)})"
    if isinstance(cause, socket.gaierror):
        return ErrorClass.DNS, "the broker's host name does not resolve to an address"
    if isinstance(cause, ConnectionRefusedError):
        return ErrorClass.CONNECTION_REFUSED, "the broker refused the connection"
    if isinstance(cause, ConnectionError | asyncio.IncompleteReadError | EOFError):
        return ErrorClass.CONNECTION_LOST, "the broker closed the connection"
    if isinstance(cause, OSError):
        if cause.errno == errno.ETIMEDOUT:
            return ErrorClass.TIMEOUT, "the broker did not answer the attempt to connect"
        if cause.errno in _NO_ROUTE:
            return ErrorClass.CONNECTION_REFUSED, "there is no route to the broker"
        if cause.errno is None and not cause.args:  # TimeoutError of asyncio's own
            return None
        # With several addresses, asyncio joins what each of them said.
        return (
            ErrorClass.CONNECTION_REFUSED,
            f"no connection to the broker could be made ({printable(str(cause))})",
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it came of, innermost last."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _verification(error: ssl.SSLCertVerificationError) -> str:
    # "Hostname mismatch, certificate is not valid for 'x'.", "self-signed certificate in certificate chain"
    words = error.verify_message or error.reason or "it could not be verified"
    return printable(words.rstrip("."))
