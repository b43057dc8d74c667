"""Certificates and keys in PEM files: read, judged, told apart, and every failure in words."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import Certificate, trustRootFromCertificates

Stamp: TypeAlias = tuple[int, int, int] | None
"""Tells a file from what it was before; None if it cannot be looked at."""


class TlsFileError(Exception):
    """A file of certificates or keys cannot be used; the text names the key and the file, and says why."""


class Identity(msgspec.Struct, frozen=True):
    """A certificate of ours with its key, and the `chain` that completes it."""

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...]

    def options(self) -> dict[str, Any]:
        """What Twisted's CertificateOptions takes of it."""
        return {
            "privateKey": PKey.from_cryptography_key(self.key),
            "certificate": X509.from_cryptography(self.certificate),
            "extraCertChain": [X509.from_cryptography(each) for each in self.chain],
        }

    @property
    def ends(self) -> datetime.datetime:
        """When it can be used no longer: at the end of the first in the chain."""
        return min(each.not_valid_after_utc for each in (self.certificate, *self.chain))


def stamp(path: Path) -> Stamp:
    """Differs once the file was written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_certificates(key: str, path: Path) -> list[x509.Certificate]:
    """The certificates of a file, one at least; TlsFileError.  `key` is where the file is named."""
    pem = _read(key, path)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsFileError(f"{key}: {path} holds no certificates in PEM") from error


def trust_in(authorities: Iterable[x509.Certificate]) -> Any:
    """What Twisted takes for its trust in these and nobody else."""
    return trustRootFromCertificates(
        [Certificate.load(each.public_bytes(Encoding.DER)) for each in authorities]
    )


def read_identity(
    certificate_key: str, certificate: Path, key_key: str, key: Path, chain: tuple[str, Path] | None = None
) -> Identity:
    """
    A certificate with its chain behind it, and the private key of another file or the same; TlsFileError.

    `chain`, a key and a file, holds more of the chain.  The dates are not looked at.
    """
    shown, *rest = read_certificates(certificate_key, certificate)
    if chain is not None:
        rest += read_certificates(*chain)
    pem = _read(key_key, key)
    # OpenSSL's own loader would ask for a passphrase on the terminal.
    try:
        private = load_pem_private_key(pem, None)
    except TypeError as error:
        raise TlsFileError(
            f"{key_key}: {key} is encrypted; write the key without a passphrase, readable by "
            "cubehook's user only"
        ) from error
    except Exception as error:
        raise TlsFileError(f"{key_key}: {key} holds no private key in PEM") from error
    try:
        public = _key_of(shown)
    except ValueError as error:
        raise TlsFileError(f"{certificate_key}: {certificate} cannot be used: {error}") from error
    if _public(private.public_key()) != public:
        raise TlsFileError(f"{key_key}: {key} is not the key of the certificate in {certificate}")
    return Identity(shown, private, tuple(rest))


def not_in_force(certificate: x509.Certificate, now: datetime.datetime | None = None) -> str | None:
    """Why a certificate is not valid at `now`, in words; None if it is."""
    now = now or datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return None


def first_end(certificates: Iterable[x509.Certificate], now: datetime.datetime) -> datetime.datetime:
    """
    When the next of several authorities ends; the end of the last, if all have ended.

    A file of authorities may hold one that has ended, and was replaced by another, for a long time.
    """
    ends = sorted(each.not_valid_after_utc for each in certificates)
    return next((end for end in ends if end >= now), ends[-1])


def certificate_pin(der: bytes) -> str:
    """The SHA-256 fingerprint of a certificate, as OpenSSL prints it: pairs of digits between colons."""
    return hashlib.sha256(der).digest().hex(":").upper()


def key_pin(certificate: x509.Certificate) -> str:
    """
    That of its public key, as curl and browsers write it: `sha256//` and base64.

    ValueError if the key is of no kind that is known.
    """
    digest = hashlib.sha256(_key_of(certificate)).digest()
    return "sha256//" + base64.b64encode(digest).decode()


def pins_of(certificate: x509.Certificate) -> tuple[str, str]:
    """The pins that fit a certificate: its own and that of its key; ValueError if that cannot be read."""
    return certificate_pin(certificate.public_bytes(Encoding.DER)), key_pin(certificate)


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFileError(f"{key}: {path} cannot be read: {error.strerror}") from error


def _key_of(certificate: x509.Certificate) -> bytes:
    try:
        return _public(certificate.public_key())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _public(key: Any) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data
