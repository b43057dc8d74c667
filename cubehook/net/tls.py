"""
How we speak TLS to others: whom we trust, and what we show of ourselves.

TLS 1.2 at least, the other side's certificate verified and its name checked, unless a webhook says
`insecure`, or a cube pins its gateway's certificate or allows older versions.  The same code for cubes and
for every transport of webhooks.
"""

from __future__ import annotations

import datetime
import functools
import ssl
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from OpenSSL.SSL import (
    OP_LEGACY_SERVER_CONNECT,
    TLS1_1_VERSION,
    TLS1_2_VERSION,
    TLS1_3_VERSION,
    TLS1_VERSION,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_NONE,
    VERIFY_PEER,
    Connection,
    Context,
)
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion, platformTrust
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.net.certificates import (
    TlsFileError,
    not_in_force,
    pins_of,
    read_certificates,
    read_identity,
    stamp,
    trust_in,
)

DEFAULT_MINIMUM: Final = "1.2"
"""The oldest version of TLS that is spoken unless an older one is allowed."""

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


class Tls:
    """
    TLS as one webhook or cube, `owner`, wants it.

    `prefix` stands before the options' names where they are told of, and `peer` is what the other side is
    called.  With `pins` the other side's certificate, or its key, must be one of them; who signed it, its
    names and its dates are of no account then.  `minimum` is the oldest version of TLS that is spoken; with
    one before 1.2 the ciphers and signatures of its time are taken too.

    The constructor raises TlsFileError: no ValueError, since such a file can be mended and `ITransport.start`
    is then tried again.  A file that
    changes is read again for the next connection; if it cannot be used, what was read before stays in
    use, and the log says why.  No other owner's connections are made by this.
    """

    _log = Logger()

    def __init__(
        self,
        options: TlsOptions,
        folder: Path,
        owner: str,
        *,
        prefix: str = "options.",
        peer: str = "receiver",
        pins: tuple[str, ...] = (),
        minimum: str = DEFAULT_MINIMUM,
    ) -> None:
        self.insecure = options.insecure
        self.peer = peer
        self.pins = frozenset(pins)
        self.ends: datetime.datetime | None = None
        """The end of the certificate that was last accepted, unless it does not matter."""
        self._minimum = minimum
        self._owner = owner
        self._prefix = prefix
        self._authorities = _path(folder, options.ca_file)
        self._certificate = _path(folder, options.client_certificate)
        self._key = _path(folder, options.client_key) or self._certificate
        self._files = {path for path in (self._authorities, self._certificate, self._key) if path is not None}
        self._stamps = self._stamped()
        common = not self._files and not pins and minimum == DEFAULT_MINIMUM
        self._context = None if common else self._made()

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
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate is not None:
            context.load_cert_chain(self._certificate, self._key)
        return context

    def _stamped(self) -> list[tuple[int, int, int] | None]:
        return [stamp(path) for path in self._files]

    def _made(self) -> Context:
        shown = {}
        if self._certificate is not None:
            assert self._key is not None
            name = f"{self._prefix}client_certificate"
            identity = read_identity(name, self._certificate, f"{self._prefix}client_key", self._key)
            why = not_in_force(identity.certificate)
            if why is not None:
                raise TlsFileError(f"{name}: {self._certificate} {why}")
            shown = identity.options()
        trusted = None
        if self._authorities is not None:
            trusted = trust_in(read_certificates(f"{self._prefix}ca_file", self._authorities))
        elif not self.pins:
            trusted = platformTrust()
        return make_context(self._minimum, trustRoot=trusted, **shown)


def verified() -> Tls:
    """TLS with what the platform trusts, and no certificate of our own."""
    return Tls(TlsOptions(), Path(), "")


_VERSIONS: Final = {
    "1.0": (TLSVersion.TLSv1_0, TLS1_VERSION),
    "1.1": (TLSVersion.TLSv1_1, TLS1_1_VERSION),
    "1.2": (TLSVersion.TLSv1_2, TLS1_2_VERSION),
    "1.3": (TLSVersion.TLSv1_3, TLS1_3_VERSION),
}

# Of OpenSSL's security levels 0 alone takes what TLS before 1.2 is signed with (MD5 and SHA-1).
_OLD_CIPHERS: Final = b"ALL:!aNULL:!eNULL:@SECLEVEL=0"


def is_old(minimum: str) -> bool:
    """Whether a version of TLS is one that nobody should speak any more."""
    return minimum < DEFAULT_MINIMUM


def make_context(minimum: str, **settings: Any) -> Context:
    """A context that speaks TLS from version `minimum` on; `settings` are those of CertificateOptions."""
    ours, openssl = _VERSIONS[minimum]
    lowest = "insecurelyLowerMinimumTo" if is_old(minimum) else "raiseMinimumTo"
    context = CertificateOptions(**{lowest: ours}, **settings).getContext()
    # The system's own policy may be stricter than what an operator decided on.
    context.set_min_proto_version(openssl)
    if is_old(minimum):
        context.set_cipher_list(_OLD_CIPHERS)
        # Systems of that age know nothing of secure renegotiation (RFC 5746), which we never do.
        context.set_options(OP_LEGACY_SERVER_CONNECT)
    return context


@functools.cache
def _platform_context() -> Context:
    """Loaded once: it holds nobody's secrets, and sessions are not resumed."""
    return make_context(DEFAULT_MINIMUM, trustRoot=platformTrust())


def _path(folder: Path, name: str | None) -> Path | None:
    return None if name is None else folder / name


class UntrustedError(Exception):
    """The other side's certificate was not accepted; the text says why."""


REASONS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its authority is not known: the chain ends in a self-signed certificate",
    20: "its authority is not known, or an intermediate certificate is missing",
    21: "its authority is not known, or an intermediate certificate is missing",
    23: "it has been revoked",
    26: "it is not meant for this purpose",
    66: "its key is too weak",
    67: "its authority's key is too weak",
    68: "its signature algorithm is too weak",
}
"""Why a certificate is not trusted, by the numbers of OpenSSL's x509_vfy.h."""


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """
    Makes client connections that accept nothing but a certificate of a trusted authority for `host`,
    or one that is pinned, unless `tls` is insecure.

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
        tls = self._tls
        if tls.pins:
            # What OpenSSL finds wrong is of no account, and only the first is what the other side holds.
            return self._not_pinned(certificate) if depth == 0 else None
        if not accepted:
            whose = "certificate" if depth == 0 else "chain: a certificate in it"
            why = REASONS.get(error, f"OpenSSL verification error {error}")
            return f"the {tls.peer}'s {whose} is not trusted: {why}"
        if depth > 0:
            return None
        shown = certificate.to_cryptography()
        try:
            if self._is_address:
                verify_certificate_ip_address(shown, self._host)
            else:
                verify_certificate_hostname(shown, self._host)
        except (VerificationError, CertificateError, ValueError):
            # ValueError: no certificate can be for this host, such as an address written as one number.
            return f"the {tls.peer}'s certificate is not for {self._host}"
        tls.ends = shown.not_valid_after_utc
        return None

    def _not_pinned(self, certificate: Any) -> str | None:
        try:
            own, of_key = pins_of(certificate.to_cryptography())
        except ValueError:
            return f"the {self._tls.peer}'s certificate cannot be read"
        pins = self._tls.pins
        if own in pins or of_key in pins:
            return None
        return (
            f"the {self._tls.peer}'s certificate is not pinned: its fingerprint is {own} (that of its key "
            f"{of_key}), pinned is {' or '.join(sorted(pins))}"
        )
