"""Which certificate somebody shows, looked at without trusting it; nothing else is sent."""

from __future__ import annotations

import socket
import time

import msgspec
from cryptography import x509
from OpenSSL.SSL import VERIFY_NONE, Connection, Error, WantReadError
from twisted.internet.abstract import isIPAddress, isIPv6Address

from cubehook.net.tls import make_context


class Presented(msgspec.Struct, frozen=True):
    """What was shown, and by which version of TLS and which ciphers."""

    certificate: x509.Certificate
    version: str
    """As "1.2"."""
    cipher: str


class PresentedError(Exception):
    """Nothing was shown; the text says why, and is fit to be shown."""


def look(host: str, port: int, seconds: float) -> Presented:
    """
    Shake hands with `host`, take note of its certificate, and hang up; blocks for `seconds` at most.

    Any version of TLS will do, since nothing is told to it.  PresentedError.  Only the look-up of a name may
    take longer.
    """
    context = make_context("1.0")
    context.set_verify(VERIFY_NONE, lambda *_: True)
    connection = Connection(context, None)
    connection.set_connect_state()
    ends = time.monotonic() + seconds
    if not (isIPAddress(host) or isIPv6Address(host)):
        connection.set_tlsext_host_name(host.encode("ascii"))
    try:
        with _connected(host, port, ends) as peer:
            _shake_hands(connection, peer, ends)
    except TimeoutError:
        raise PresentedError(f"no certificate within {seconds:g} s") from None
    except socket.gaierror as error:
        raise PresentedError(f"the name was not found: {error.strerror}") from None
    except OSError as error:
        raise PresentedError(error.strerror or str(error)) from None
    except UnicodeError:
        raise PresentedError("that is no name that a host can have") from None
    except Error as error:
        # Who wants a certificate of ours, too, has shown its own before it hangs up.
        if connection.get_peer_certificate() is None:
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
            raise PresentedError(
                f"no TLS: {', '.join(reason[-1] for reason in reasons) or 'ended'}"
            ) from None
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise PresentedError("it shows no certificate")
    version = connection.get_protocol_version_name().removeprefix("TLSv")
    return Presented(
        certificate, "1.0" if version == "1" else version, connection.get_cipher_name() or "unknown"
    )


def _connected(host: str, port: int, ends: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, in the time for all of them."""
    failed: OSError = TimeoutError()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        peer = socket.socket(family, kind, protocol)
        try:
            peer.settimeout(_left(ends))
            peer.connect(address)
        except OSError as error:
            peer.close()
            failed = error
        else:
            return peer
    raise failed


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shake_hands(connection: Connection, peer: socket.socket, ends: float) -> None:
    over = False
    while not over:
        try:
            connection.do_handshake()
            over = True
        except WantReadError:
            pass
        peer.settimeout(_left(ends))
        try:
            while True:
                peer.sendall(connection.bio_read(1 << 16))
        except WantReadError:
            pass
        if over:
            return
        # What was sent may have taken time, too.
        peer.settimeout(_left(ends))
        data = peer.recv(1 << 16)
        if not data:
            raise ConnectionResetError(0, "it hung up during the handshake")
        connection.bio_write(data)
