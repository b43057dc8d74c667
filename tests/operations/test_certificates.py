"""When certificates end, and what is said of it and when."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube, Listen, Webhook
from cubehook.operations.certificates import Certificates

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(days: float) -> bytes:
    """One that ends so many days from `NOW`."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    ends = NOW + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(ends - datetime.timedelta(days=1000))
        .not_valid_after(ends)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


class Listener:
    name = "listen.cubes[0]"

    def __init__(self, days: float) -> None:
        self.ends = NOW + datetime.timedelta(days=days)
        self.refreshed = 0

    def refresh(self) -> str | None:
        self.refreshed += 1
        return None


class CertificatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.now = NOW
        self.ticks = 0
        self.listeners: list[Listener] = []
        self.cubes: dict[str, Cube] = {}
        self.gateways: list[tuple[str, datetime.datetime]] = []
        self.webhooks: dict[str, Webhook] = {}
        self.listen = Listen()
        self.certificates = Certificates(
            self.folder,
            lambda: int(self.now.timestamp() * 1_000_000),
            listen=lambda: self.listen,
            listeners=lambda: self.listeners,
            cubes=lambda: self.cubes,
            gateways=lambda: self.gateways,
            webhooks=lambda: self.webhooks,
        )

    def write(self, name: str, *days: float) -> None:
        (self.folder / name).write_bytes(b"".join(map(certificate, days)))
        # A file that is written twice within one tick of the clock keeps its time.
        self.ticks += 1
        os.utime(self.folder / name, ns=(self.ticks, self.ticks))

    def cube(self, **settings: Any) -> None:
        self.cubes["hq"] = Cube(id="hq", provider_url="https://r/", application_url="https://a/", **settings)

    def days(self) -> dict[str, float]:
        return {
            name: round((ends - NOW.timestamp()) / 86400, 3) for name, ends in self.certificates.timestamps()
        }

    def said(self) -> list[tuple[str, str]]:
        with capturedLogs() as events:
            self.certificates.look()
        return [(event["log_level"].name, event["log_format"].format(**event)) for event in events]

    def test_all_there_are(self) -> None:
        for name, days in (
            ("ca.pem", 1),
            ("us.pem", 2),
            ("hook-ca.pem", 3),
            ("hook.pem", 4),
            ("client.pem", 5),
        ):
            self.write(name, days)
        self.cube(ca_file="ca.pem", client_certificate="us.pem")
        self.webhooks["crm"] = Webhook(
            id="crm", options={"ca_file": "hook-ca.pem", "client_certificate": "hook.pem", "proxy": "x"}
        )
        self.listeners = [Listener(6)]
        self.gateways = [("hq", NOW + datetime.timedelta(days=7))]
        self.listen = Listen(client_ca=self.folder / "client.pem")
        self.assertEqual(
            self.days(),
            {
                "listen.cubes[0]": 6,
                "listen.client_ca": 5,
                "cubes.hq.ca_file": 1,
                "cubes.hq.client_certificate": 2,
                "cubes.hq.gateway": 7,
                "webhooks.crm.options.ca_file": 3,
                "webhooks.crm.options.client_certificate": 4,
            },
        )
        # Nobody needs those of what is off.
        self.cube(ca_file="ca.pem", enabled=False)
        self.webhooks["crm"] = Webhook(id="crm", enabled=False, options={"ca_file": "hook-ca.pem"})
        self.assertEqual(set(self.days()), {"listen.cubes[0]", "listen.client_ca", "cubes.hq.gateway"})

    def test_several_in_a_file(self) -> None:
        # Of authorities, those that have ended were replaced; a chain is as strong as its weakest link.
        self.write("many.pem", 90, -5, 40)
        self.cube(ca_file="many.pem", client_certificate="many.pem")
        self.assertEqual(self.days(), {"cubes.hq.ca_file": 40, "cubes.hq.client_certificate": -5})
        self.now += datetime.timedelta(days=41)
        self.assertEqual(self.days()["cubes.hq.ca_file"], 90)
        self.now += datetime.timedelta(days=50)
        self.assertEqual(self.days()["cubes.hq.ca_file"], 90)

    def test_files_that_come_change_and_go(self) -> None:
        self.cube(ca_file="ca.pem")
        self.assertEqual((self.days(), self.said()), ({}, []))
        self.write("ca.pem", 50)
        self.assertEqual(self.days(), {"cubes.hq.ca_file": 50})
        self.write("ca.pem", 60)
        self.assertEqual(self.days(), {"cubes.hq.ca_file": 60})
        (self.folder / "ca.pem").write_bytes(b"nonsense")
        self.assertEqual(self.days(), {})
        (self.folder / "ca.pem").unlink()
        self.assertEqual(self.days(), {})
        self.webhooks["odd"] = Webhook(id="odd", options={"ca_file": 5, "client_certificate": ["x"]})
        self.assertEqual(self.days(), {})

    def test_warned_of_at_thirty_seven_and_one_days_and_when_over(self) -> None:
        self.write("us.pem", 40)
        self.cube(client_certificate="us.pem")
        told = {}
        for hour in range(24 * 45):
            self.now = NOW + datetime.timedelta(hours=hour)
            for level, text in self.said():
                told[hour / 24] = (level, text)
        self.assertEqual(
            [(day, level) for day, (level, _) in told.items()],
            [(10, "warn"), (33, "warn"), (39, "warn"), (40, "error")],
        )
        self.assertEqual(
            told[10][1],
            "Our certificate for cube hq (cubes.hq.client_certificate) ends in 30 days, on 2026-07-11 12:00 "
            "UTC: renew it",
        )
        self.assertIn(" ended on 2026-07-11", told[40][1])
        # One that is renewed is good, and another that ends is another.
        self.write("us.pem", 400)
        self.assertEqual(self.said(), [])
        self.write("us.pem", 50)
        [(level, _)] = self.said()
        self.assertEqual(level, "warn")

    def test_listeners_look_at_their_files(self) -> None:
        self.listeners = [Listener(-3)]
        [(level, told)] = self.said()
        self.assertEqual((level, self.listeners[0].refreshed), ("error", 1))
        self.assertIn("The certificate of a listener (listen.cubes[0]) ended on 2026-05-29", told)
        self.assertEqual(self.said(), [])
