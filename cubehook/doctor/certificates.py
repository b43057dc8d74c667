"""Certificates: in files, and as they were shown over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from cubehook.doctor.comparing import is_address
from cubehook.doctor.findings import Finding, failed, ok, warning
from cubehook.net.certificates import (
    TlsFileError,
    first_end,
    not_in_force,
    read_certificates,
    read_identity,
)

SOON_DAYS = 30

MEND = "Mend the file, and let the service's user read it."


def certificate_findings(
    area: str, what: str, certificate: x509.Certificate, now: datetime, host: str | None = None
) -> Iterator[Finding]:
    """Its dates, and whether it is for `host` if that is given; `what` it is begins the sentences."""
    why, ends = not_in_force(certificate, now), certificate.not_valid_after_utc
    if why is not None:
        yield failed(area, f"{what} {why}", "Put a new one in its place, unless it is a clock that is wrong.")
    else:
        yield until(area, what, ends, now)
    if host is not None and not is_for(certificate, host):
        names = ", ".join(_names(certificate)) or "nobody"
        yield failed(
            area, f"{what} is not for {host}, but for {names}", f"Have one made with the name {host}."
        )


def until(area: str, what: str, ends: datetime, now: datetime) -> Finding:
    """For how long something is still good."""
    days = (ends - now).days
    if days >= SOON_DAYS:
        return ok(area, f"{what} is good until {ends:%Y-%m-%d}, for {days:,} days")
    left = "1 day is" if days == 1 else f"{days} days are"
    return warning(area, f"{what} ends on {ends:%Y-%m-%d}: {left} left", "Put a new one in its place.")


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether it is one of `host`, a name or an address."""
    try:
        if is_address(host):
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(each.value) for each in found if isinstance(each, x509.DNSName | x509.IPAddress)]


def authorities_findings(area: str, key: str, path: Path, now: datetime) -> Iterator[Finding]:
    """Whether the file at `path`, which `key` names, holds authorities, and until when the next is good."""
    try:
        ends = first_end(read_certificates(key, path), now)
    except TlsFileError as error:
        yield failed(area, str(error), MEND)
        return
    if ends < now:
        yield failed(area, f"{key}: all in {path} have expired", "Put the new ones in their place.")
    else:
        yield until(area, f"{key}: what {path} holds", ends, now)


def identity_findings(
    area: str, key: str, path: Path, key_key: str, key_path: Path, now: datetime, host: str | None = None
) -> Iterator[Finding]:
    """Whether the certificate and its private key can be used, go together, and for how long."""
    try:
        identity = read_identity(key, path, key_key, key_path)
    except TlsFileError as error:
        yield failed(area, str(error), MEND)
        return
    yield from certificate_findings(area, f"{key}: {path}", identity.certificate, now, host)
