"""
How a webhook speaks TLS: whom it trusts, and what it shows of itself.

TLS 1.2 at least, the receiver's certificate verified and its name checked, unless the webhook says
`insecure`.  The same options, and the same code, for every transport.
"""

from __future__ import annotations

import datetime
import functools
import ssl
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_NONE, VERIFY_PEER, Connection, Context
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

UNVERIFIED = "the receiver's certificate was not verified (options.insecure)"
"""What the log of attempts says of each that trusted whoever answered."""


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a transport's options say of TLS; for the structs of options to inherit from.

    Files are PEM, relative to the state folder, and read again when they change.
    """

    ca_file: Annotated[
        str | None,
        msgspec.Meta(description="the authorities that may vouch for the receiver, not the platform's"),
    ] = None
    client_certificate: Annotated[
        str | None, msgspec.Meta(description="our own certificate and the chain that completes it")
    ] = None
    client_key: Annotated[
        str | None, msgspec.Meta(description="its private key, if that is not in the same file")
    ] = None
    insecure: Annotated[
        bool, msgspec.Meta(description="accept any certificate: whoever is in between reads all that is sent")
    ] = False


def check_tls(options: TlsOptions) -> list[tuple[str, str]]:
    """What is wrong with `options`, for `ITransportPlugin.check`; files are not read."""
    problems = [
        (f"options.{name}", "the name of a file, or none")
        for name in ("ca_file", "client_certificate", "client_key")
        if getattr(options, name) == ""
    ]
    if options.client_key is not None and options.client_certificate is None:
        problems.append(("options.client_certificate", "the certificate that client_key belongs to"))
    return problems


class TlsFileError(Exception):
    """A file of the TLS options cannot be used; the text names the option and the file, and says why."""


class Tls:
    """
    TLS as one webhook, `owner`, wants it.

    The constructor raises TlsFileError: no ValueError, since such a file can be mended and `ITransport.start`
    is then tried again.  A file that
    changes is read again for the next connection; if it cannot be used, what was read before stays in
    use, and the log says why.  No other webhook's connections are made by this.
    """

    _log = Logger()

    def __init__(self, options: TlsOptions, folder: Path, owner: str) -> None:
        self.insecure = options.insecure
        self._owner = owner
        self._authorities = _path(folder, options.ca_file)
        self._certificate = _path(folder, options.client_certificate)
        self._key = _path(folder, options.client_key) or self._certificate
        self._files = {path for path in (self._authorities, self._certificate, self._key) if path is not None}
        self._stamps = self._stamped()
        self._context = self._made() if self._files else None

    @property
    def shows_certificate(self) -> bool:
        """There is a client certificate to show."""
        return self._certificate is not None

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What makes a connection to `host`, for `wrapClientTLS`; files may change after this."""
        creator: IOpenSSLClientConnectionCreator = _Creator(host, self)
        return creator

    def context(self) -> Context:
        """The context for one connection, which does not verify by itself."""
        if self._context is None:
            return _platform_context()
        stamps = self._stamped()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._made()
            except TlsFileError as error:
                self._log.error(
                    "{owner}: {error}; what was read before it changed stays in use",
                    owner=self._owner,
                    error=str(error),
                )
            else:
                self._log.info("{owner}: the files of its TLS options were read again", owner=self._owner)
        return self._context

    def standard(self) -> ssl.SSLContext:
        """
        The same for the standard library's TLS, for libraries that open their sockets themselves.

        Made from the files as they are now; TlsFileError as from the constructor.
        """
        if self._files:
            self._made()
        context = ssl.create_default_context(cafile=self._authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # From Python 3.13 on the default; the authorities of many companies are not that strict (RFC 5280),
        # and are good enough for the other transports.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # From Python 3.13 on it would refuse authorities that OpenSSL, and so our own connections, accept.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate is not None:
            context.load_cert_chain(self._certificate, self._key)
        return context

    def _stamped(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]

    def _made(self) -> Context:
        shown = {}
        if self._certificate is not None:
            assert self._key is not None
            shown = _identity(self._certificate, self._key)
        trusted = platformTrust() if self._authorities is None else _authorities(self._authorities)
        return _context(trusted, **shown)


def verified() -> Tls:
    """TLS with what the platform trusts, and no certificate of our own."""
    return Tls(TlsOptions(), Path(), "")


def _context(trusted: Any, **shown: Any) -> Context:
    return CertificateOptions(trustRoot=trusted, raiseMinimumTo=TLSVersion.TLSv1_2, **shown).getContext()


@functools.cache
def _platform_context() -> Context:
    """Loaded once: it holds nobody's secrets, and sessions are not resumed."""
    return _context(platformTrust())


def _path(folder: Path, name: str | None) -> Path | None:
    return None if name is None else folder / name


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFileError(f"options.{option}: {path} cannot be read: {error.strerror}") from error


def _certificates(option: str, path: Path) -> list[x509.Certificate]:
    pem = _read(option, path)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsFileError(f"options.{option}: {path} holds no certificates in PEM") from error


def _authorities(path: Path) -> Any:
    return trustRootFromCertificates(
        [
            Certificate.load(certificate.public_bytes(Encoding.DER))
            for certificate in _certificates("ca_file", path)
        ]
    )


def _identity(certificate: Path, key: Path) -> dict[str, Any]:
    """What CertificateOptions takes of our own certificate, with its key and chain."""
    shown, *chain = _certificates("client_certificate", certificate)
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = shown.not_valid_before_utc, shown.not_valid_after_utc
    if ends < now:
        raise TlsFileError(f"options.client_certificate: {certificate} expired on {ends:%Y-%m-%d}")
    if begins > now:
        raise TlsFileError(f"options.client_certificate: {certificate} is not valid before {begins:%Y-%m-%d}")
    pem = _read("client_key", key)
    # OpenSSL's own loader would ask for a passphrase on the terminal.
    try:
        private = load_pem_private_key(pem, None)
    except TypeError as error:
        raise TlsFileError(
            f"options.client_key: {key} is encrypted; write the key without a passphrase, readable by "
            "cubehook's user only"
        ) from error
    except Exception as error:
        raise TlsFileError(f"options.client_key: {key} holds no private key in PEM") from error
    if _public(private.public_key()) != _public(shown.public_key()):
        raise TlsFileError(f"options.client_key: {key} is not the key of the certificate in {certificate}")
    return {
        "privateKey": PKey.from_cryptography_key(private),  # type: ignore[arg-type]
        "certificate": X509.from_cryptography(shown),
        "extraCertChain": [X509.from_cryptography(each) for each in chain],
    }


def _public(key: Any) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


class UntrustedError(Exception):
    """The receiver's certificate was not accepted; the text says why."""


# OpenSSL's x509_vfy.h.
_REASONS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its authority is not known: the chain ends in a self-signed certificate",
    20: "its authority is not known, or an intermediate certificate is missing",
    21: "its authority is not known, or an intermediate certificate is missing",
    23: "it has been revoked",
    26: "it is not meant for servers",
    66: "its key is too weak",
    67: "its authority's key is too weak",
    68: "its signature algorithm is too weak",
}


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """
    Makes client connections that accept nothing but a certificate of a trusted authority for `host`,
    unless `tls` is insecure.

    Twisted's own `optionsForClientTLS` checks the same, but tells of a bad chain only that it is bad:
    OpenSSL gives the reason to the callback, and to nothing else that pyOpenSSL shows.  This one fails
    with UntrustedError and the reason.
    """

    def __init__(self, host: str, tls: Tls) -> None:
        # The dot that makes a name absolute is no part of it here (RFC 6066, section 3).
        self._host = host.removesuffix(".")
        self._is_address = isIPAddress(self._host) or isIPv6Address(self._host)
        self._tls = tls

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        connection = Connection(self._tls.context(), None)
        # RFC 6066, section 3: an address is not sent as a server's name.
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        if self._tls.insecure:
            connection.set_verify(VERIFY_NONE, lambda *_: True)
            return connection

        def verify(_: Connection, certificate: Any, error: int, depth: int, accepted: int) -> bool:
            # pyOpenSSL takes an exception out of here for a refusal.
            problem = self._problem(certificate, error, depth, bool(accepted))
            if problem is not None:
                tlsProtocol.failVerification(Failure(UntrustedError(problem)))
            return problem is None

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _problem(self, certificate: Any, error: int, depth: int, accepted: bool) -> str | None:
        if not accepted:
            whose = "the receiver's certificate" if depth == 0 else "a certificate in the receiver's chain"
            return f"{whose} is not trusted: {_REASONS.get(error, f'OpenSSL verification error {error}')}"
        if depth > 0:
            return None
        try:
            if self._is_address:
                verify_certificate_ip_address(certificate.to_cryptography(), self._host)
            else:
                verify_certificate_hostname(certificate.to_cryptography(), self._host)
        except (VerificationError, CertificateError, ValueError):
            # ValueError: no certificate can be for this host, such as an address written as one number.
            return f"the receiver's certificate is not for {self._host}"
        return None
