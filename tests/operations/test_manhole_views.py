"""What the manhole tells of things, as far as it is pure."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube
from cubehook.operations.manhole.screen import Cell
from cubehook.operations.manhole.views import secure_mode


class SecureModeTests(SynchronousTestCase):
    def told(self, url: str = "https://192.0.2.1/cisco_xcc", **settings: Any) -> list[str]:
        cube = Cube(id="hq", provider_url=url, application_url="https://192.0.2.20/xcc", **settings)
        return [value.text if isinstance(value, Cell) else value for _, value in secure_mode(cube)]

    def test_whom_it_trusts_and_how_old_it_may_be(self) -> None:
        self.assertEqual(self.told("http://192.0.2.1:8090/cisco_xcc"), [])
        self.assertEqual(self.told(), ["by the machine's authorities"])
        self.assertEqual(self.told(ca_file="ca.pem"), ["by ca.pem"])
        told = self.told(pins=("AB",), tls_minimum="1.1")
        self.assertEqual(told, ["pinned", "1.1, which is not safe"])
