"""Settings that are valid, and seldom meant."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Config, Cube, Egress, Listen, Manhole, Webhook
from cubehook.doctor.findings import Level
from cubehook.doctor.suspicions import suspicions

GATEWAY = "http://192.0.2.1:8090/cisco_xcc"
DEFAULTS = Config()
OURS = "http://192.0.2.20:8090/xcc/hq"


def cube(id: str = "hq", provider: str = GATEWAY, ours: str = OURS, allow: tuple[str, ...] = ()) -> Cube:
    return Cube(id=id, provider_url=provider, application_url=ours, allow_from=allow)


class Suspicions(SynchronousTestCase):
    def said(self, *cubes: Cube, config: Config = DEFAULTS) -> str:
        found = list(suspicions(config, cubes))
        self.assertLessEqual({each.level for each in found}, {Level.WARNING})
        return "\n".join(each.text for each in found)

    def test_none(self) -> None:
        self.assertEqual(self.said(cube()), "")
        self.assertEqual(self.said(cube(allow=("192.0.2.0/24",))), "")
        # As in a trial on one machine, where the gateway is simulated.
        on_loopback = cube(provider="http://127.0.0.1:9001/cisco_xcc", ours="http://127.0.0.1:8090/x")
        self.assertEqual(self.said(on_loopback), "")
        secure = cube(provider="https://192.0.2.1/cisco_xcc", ours="https://192.0.2.20:8443/x")
        self.assertEqual(self.said(secure), "")

    def test_application_url(self) -> None:
        for host, words in (
            ("127.0.0.1", "to the router 192.0.2.1 is itself"),
            ("localhost", "to the router 192.0.2.1 is itself"),
            ("0.0.0.0", "nobody's address"),
            ("[::]", "nobody's address"),
        ):
            self.assertIn(words, self.said(cube(ours=f"http://{host}:8090/xcc")))

    def test_provider_url(self) -> None:
        self.assertIn("port 8080", self.said(cube(provider="http://192.0.2.1:8080/cisco_xcc")))
        self.assertIn("no port, which is 80", self.said(cube(provider="http://192.0.2.1/cisco_xcc")))
        self.assertIn("path /xcc", self.said(cube(provider="http://192.0.2.1:8090/xcc")))

    def test_one_way_secure(self) -> None:
        self.assertIn("both ways", self.said(cube(provider="https://192.0.2.1/cisco_xcc")))

    def test_allow_from(self) -> None:
        self.assertIn("has not 192.0.2.1", self.said(cube(allow=("198.51.100.0/24", "2001:db8::/32"))))
        self.assertIn("lets everybody speak", self.said(cube(allow=("0.0.0.0/0",))))

    def test_cubes_that_are_alike(self) -> None:
        other = "http://192.0.2.21:8090"
        self.assertIn("one provider_url", self.said(cube(), cube("b", ours=f"{other}/b")))
        far = "http://192.0.2.9:8090/cisco_xcc"
        self.assertIn("with one path, /xcc/hq", self.said(cube(), cube("b", far, f"{other}/xcc/hq")))
        self.assertIn(
            "easily mistaken, /xcc/hq and /xcc/HQ/", self.said(cube(), cube("b", far, f"{other}/xcc/HQ/"))
        )

    def test_doors(self) -> None:
        for endpoint, clear in (
            ("tcp:8080", True),
            ("tcp:8080:interface=127.0.0.1", False),
            ("ssl:8443:privateKey=k.pem", False),
            ("unix:/run/x", False),
        ):
            config = Config(listen=Listen(console=(endpoint,)))
            self.assertEqual("without TLS" in self.said(config=config), clear, endpoint)
        manhole = Manhole(
            ssh="tcp:2222",
            authorized_keys=Path("k"),
            telnet="tcp:2323:interface=127.0.0.1",
            password_file=Path("p"),
        )
        said = self.said(config=Config(manhole=manhole))
        self.assertIn("manhole.telnet", said)
        self.assertIn("manhole.ssh", said)

    def test_old_tls(self) -> None:
        self.assertIn("listen.tls_minimum is 1.1", self.said(config=Config(listen=Listen(tls_minimum="1.1"))))
        old = Cube(id="hq", provider_url=GATEWAY, application_url=OURS, tls_minimum="1.0")
        self.assertIn("cubes.hq.tls_minimum is 1.0", self.said(old))

    def test_loopback_that_nobody_needs(self) -> None:
        egress = Egress(allow=("127.0.0.0/8",))
        self.assertIn("egress.allow", self.said(config=Config(egress=egress)))
        local = Webhook(id="a", url="http://localhost:9000/")
        self.assertEqual(self.said(config=Config(egress=egress, webhooks=(local,))), "")
