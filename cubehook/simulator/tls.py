"""TLS as a router speaks it in secure mode: with a certificate of its own making, and as old as may be."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from cubehook.net.certificates import Identity, pins_of, read_certificates, read_identity

VERSIONS = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}


class Secure(msgspec.Struct, frozen=True, kw_only=True):
    """
    Secure mode: what the router shows, to clients and to servers that ask, and whom it takes.

    `authorities` vouch for the application's certificate, whatever names it has; without any, every
    application is taken.  `version` is the only one spoken.
    """

    identity: Identity
    authorities: tuple[x509.Certificate, ...] = ()
    version: str | None = None

    @property
    def pin(self) -> str:
        """The fingerprint of its certificate."""
        return pins_of(self.identity.certificate)[0]


def read_secure(
    certificate: Path | None, key: Path | None, authorities: Path | None, version: str | None
) -> Secure:
    """Secure mode with the certificates of files, of its own making where there is none; TlsFileError."""
    if certificate is None:
        identity = own_identity()
    else:
        identity = read_identity("--tls-cert", certificate, "--tls-key", key or certificate)
    trusted = () if authorities is None else tuple(read_certificates("--tls-ca", authorities))
    return Secure(identity=identity, authorities=trusted, version=version)


def own_identity(bits: int = 2048) -> Identity:
    """A new certificate of the kind that IOS makes for itself: for no name of its own, and ended in 2020."""
    key = rsa.generate_private_key(65537, bits)
    number = x509.random_serial_number()
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"IOS-Self-Signed-Certificate-{number % 10**10:010}")]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(datetime.datetime(2016, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key, ())


def pem_of(identity: Identity) -> tuple[bytes, bytes]:
    """A certificate with its chain, and its key, in PEM."""
    shown = b"".join(each.public_bytes(Encoding.PEM) for each in (identity.certificate, *identity.chain))
    return shown, identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def over_tls(secure: Secure, factory: IProtocolFactory) -> IProtocolFactory:
    """`factory` for a server, over TLS."""
    wrapped = TLSMemoryBIOFactory(_Creator(secure), False, factory)
    wrapped.noisy = False
    return wrapped


def to_application(secure: Secure, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
    """`endpoint`, which leads to the application, over TLS."""
    wrapped: IStreamClientEndpoint = wrapClientTLS(_Creator(secure), endpoint)
    return wrapped


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes either side's connections."""

    def __init__(self, secure: Secure) -> None:
        self._context = context = SSL.Context(SSL.TLS_METHOD)
        if secure.version is not None:
            context.set_min_proto_version(VERSIONS[secure.version])
            context.set_max_proto_version(VERSIONS[secure.version])
        # Routers are not as particular about keys and signatures as OpenSSL.
        context.set_cipher_list(b"ALL:!aNULL:!eNULL:@SECLEVEL=0")
        shown = secure.identity.options()
        context.use_certificate(shown["certificate"])
        context.use_privatekey(shown["privateKey"])
        for each in shown["extraCertChain"]:
            context.add_extra_chain_cert(each)
        # A client resumes nothing, and what is remembered for it costs memory under load.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._verifies = bool(secure.authorities)
        store = context.get_cert_store()
        assert store is not None
        for authority in secure.authorities:
            store.add_cert(X509.from_cryptography(authority))

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._verifies:
            connection.set_verify(SSL.VERIFY_PEER, lambda _, __, ___, ____, accepted: bool(accepted))
        return connection
