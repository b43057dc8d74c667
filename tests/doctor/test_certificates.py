"""Certificates: their dates and names, and the files they are in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from cubehook.doctor.certificates import (
    authorities_findings,
    certificate_findings,
    identity_findings,
    until,
)
from cubehook.doctor.findings import Finding, Level
from tests.transports.support import Authority

NOW = datetime(2024, 11, 23, tzinfo=UTC)


class Certificates(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.now = datetime.now(UTC)

    def found(self, findings: Iterable[Finding]) -> tuple[set[Level], str]:
        told = list(findings)
        return {each.level for each in told}, "; ".join(each.text for each in told)

    def of(self, *names: str, host: str | None = None, **validity: bool) -> tuple[set[Level], str]:
        pem, _ = self.authority.issue("it", *names, **validity)  # type: ignore[arg-type]
        certificate = x509.load_pem_x509_certificate(pem)
        return self.found(certificate_findings("a", "It", certificate, self.now, host))

    def test_dates(self) -> None:
        self.assertEqual(until("a", "It", NOW + timedelta(days=90), NOW).level, Level.OK)
        soon = until("a", "It", NOW + timedelta(days=29.5), NOW)
        self.assertEqual((soon.level, soon.text), (Level.WARNING, "It ends on 2024-12-22: 29 days are left"))
        self.assertIn("1 day is left", until("a", "It", NOW + timedelta(days=1.5), NOW).text)
        levels, told = self.of(expired=True)
        self.assertIn(Level.FAILED, levels)
        self.assertIn("It expired on", told)
        self.assertIn("is not valid before", self.of(early=True)[1])

    def test_names(self) -> None:
        for host in ("cubehook.example", "192.0.2.20"):
            self.assertNotIn(Level.FAILED, self.of("cubehook.example", "192.0.2.20", host=host)[0])
        levels, told = self.of("other.example", host="cubehook.example")
        self.assertIn(Level.FAILED, levels)
        self.assertIn("is not for cubehook.example, but for other.example", told)
        self.assertIn("but for nobody", self.of(host="192.0.2.20")[1])

    def test_files(self) -> None:
        path = self.authority.write(self.folder / "ca.pem")
        self.assertIn("what", self.found(authorities_findings("a", "ca_file", path, self.now))[1])
        missing = self.folder / "missing.pem"
        levels, told = self.found(authorities_findings("a", "ca_file", missing, self.now))
        self.assertEqual(levels, {Level.FAILED})
        self.assertIn("ca_file:", told)
        later = self.now + timedelta(days=365)
        self.assertIn("all in", self.found(authorities_findings("a", "ca_file", path, later))[1])

    def test_identity(self) -> None:
        own, other = self.folder / "own.pem", self.folder / "other.pem"
        own.write_bytes(self.authority.pem("a.example"))
        other.write_bytes(self.authority.pem("a.example"))
        levels, _ = self.found(identity_findings("a", "cert", own, "key", own, self.now))
        self.assertEqual(levels, {Level.WARNING})  # as it ends tomorrow
        levels, told = self.found(identity_findings("a", "cert", own, "key", other, self.now))
        self.assertEqual(levels, {Level.FAILED})
        self.assertIn("is not the key of the certificate", told)
