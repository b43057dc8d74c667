"""The lines to paste on a router."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube
from cubehook.operations.ios import ios_config


def lines(
    provider_url: str, application_url: str = "http://192.0.2.20:8090/xcc/hq", authority: str = ""
) -> list[str]:
    cube = Cube(id="hq", provider_url=provider_url, application_url=application_url)
    return ios_config(cube, authority).splitlines()


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

    def test_secure_mode_whole(self) -> None:
        pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.assertEqual(
            lines("https://192.0.2.1:8443/cisco_xcc", "https://192.0.2.20:8443/xcc/hq", pem),
            [
                "! cubehook, cube hq",
                "! uc secure-wsapi needs IOS XE 16.6.1, and cannot stand beside uc wsapi: first, no uc wsapi",
                "crypto pki trustpoint CUBEHOOK",
                " enrollment terminal",
                " revocation-check none",
                " exit",
                "crypto pki authenticate CUBEHOOK",
                "-----BEGIN CERTIFICATE-----",
                "AAAA",
                "-----END CERTIFICATE-----",
                "quit",
                "yes",
                "ip http secure-port 8443",
                "! unless the router is to make its own certificate: ip http secure-trustpoint NAME",
                "ip http secure-server",
                "ip http max-connections 100",
                "ip http timeout-policy idle 600 life 86400 requests 86400",
                "http client connection persistent",
                "http client connection idle timeout 600",
                "uc secure-wsapi",
                " message-exchange max-failures 2",
                " response-timeout 10",
                " probing max-failures 5",
                " probing interval keepalive 30",
                " probing interval negative 10",
                " source-address 192.0.2.1",
                " provider xcc",
                "  no shutdown",
                "  remote-url https://192.0.2.20:8443/xcc/hq",
            ],
        )

    def test_secure_mode_without_the_certificate(self) -> None:
        found = lines("https://192.0.2.1/cisco_xcc", "https://192.0.2.20:8443/xcc/hq")
        self.assertIn("! then, by hand: crypto pki authenticate CUBEHOOK", found)
        self.assertNotIn("crypto pki authenticate CUBEHOOK", found)
        # The usual port is not written.
        self.assertFalse([line for line in found if "secure-port" in line])
        self.assertNotIn("ip http server", found)

    def test_urls_that_secure_mode_has_no_use_for(self) -> None:
        for url, words in (
            ("http://192.0.2.20:8090/xcc/hq", "takes an https remote-url only"),
            ("https://cubehook.example:8443/xcc/hq", "takes an IPv4 address"),
            ("https://[2001:db8::1]:8443/xcc/hq", "takes an IPv4 address"),
        ):
            found = lines("https://192.0.2.1/cisco_xcc", url)
            self.assertTrue(any(line.startswith("!") and words in line for line in found), found)

    def test_source_address_is_left_to_the_engineer_where_it_is_not_known(self) -> None:
        for host in ("gw.example", "[2001:db8::1]"):
            [line] = [line for line in lines(f"http://{host}:8090/cisco_xcc") if "source-address" in line]
            self.assertTrue(line.startswith(" ! source-address A.B.C.D"), line)

    def test_question_mark(self) -> None:
        found = lines("http://192.0.2.1:8090/cisco_xcc", "http://192.0.2.20:8090/xcc?cube=hq")
        self.assertTrue(any("Ctrl+V" in line for line in found))
        self.assertEqual(found[-1], "  remote-url http://192.0.2.20:8090/xcc?cube=hq")
