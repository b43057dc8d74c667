"""The lines to paste on a router."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube
from cubehook.operations.ios import ios_config


def lines(provider_url: str, application_url: str = "http://192.0.2.20:8090/xcc/hq") -> list[str]:
    cube = Cube(id="hq", provider_url=provider_url, application_url=application_url)
    return ios_config(cube).splitlines()


class IosConfig(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(
            lines("http://192.0.2.1:8090/cisco_xcc"),
            [
                "! cubehook, cube hq",
                "ip http server",
                "ip http max-connections 100",
                "ip http timeout-policy idle 600 life 86400 requests 86400",
                "http client connection persistent",
                "http client connection idle timeout 600",
                "uc wsapi",
                " message-exchange max-failures 2",
                " response-timeout 10",
                " probing max-failures 5",
                " probing interval keepalive 30",
                " probing interval negative 10",
                " source-address 192.0.2.1",
                " provider xcc",
                "  no shutdown",
                "  remote-url http://192.0.2.20:8090/xcc/hq",
            ],
        )

    def test_secure(self) -> None:
        found = lines("https://192.0.2.1/cisco_xcc")
        self.assertIn("uc secure-wsapi", found)
        self.assertNotIn("uc wsapi", found)

    def test_source_address_is_left_to_the_engineer_where_it_is_not_known(self) -> None:
        for host in ("gw.example", "[2001:db8::1]"):
            [line] = [line for line in lines(f"http://{host}:8090/cisco_xcc") if "source-address" in line]
            self.assertTrue(line.startswith(" ! source-address A.B.C.D"), line)

    def test_question_mark(self) -> None:
        found = lines("http://192.0.2.1:8090/cisco_xcc", "http://192.0.2.20:8090/xcc?cube=hq")
        self.assertTrue(any("Ctrl+V" in line for line in found))
        self.assertEqual(found[-1], "  remote-url http://192.0.2.20:8090/xcc?cube=hq")
