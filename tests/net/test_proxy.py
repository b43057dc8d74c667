"""Whom a proxy is not asked for, and what an address is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config_rules import no_proxy
from cubehook.net.proxy import NoProxy, Proxy, written_address


class NoProxyTests(SynchronousTestCase):
    def _names(self, entry: str, host: str, port: int = 443) -> bool:
        self.assertEqual(no_proxy(entry), entry)
        return NoProxy([entry]).names(host, port)

    def test_a_domain_is_itself_and_all_under_it_however_it_is_written(self) -> None:
        for entry in ("example.com", ".example.com", "*.example.com", "EXAMPLE.com", "example.com."):
            for host in (
                "example.com",
                "Example.COM",
                "a.example.com",
                "a.b.example.com.",
                "a_b.example.com",
            ):
                self.assertTrue(self._names(entry, host), (entry, host))
            for host in ("notexample.com", "example.com.evil", "com", "example.org", "192.0.2.1"):
                self.assertFalse(self._names(entry, host), (entry, host))

    def test_addresses_and_networks(self) -> None:
        for entry, host, expected in (
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.10", False),
            ("192.0.2.1", "3221225985", True),
            ("192.0.2.0/24", "192.0.2.77", True),
            ("192.0.2.0/24", "192.0.3.1", False),
            ("192.0.2.0/24", "::ffff:192.0.2.1", True),
            ("2001:db8::/32", "2001:db8::5", True),
            ("2001:db8::/32", "2001:db9::5", False),
            ("2001:db8::1", "2001:DB8:0::1", True),
            ("[2001:db8::1]", "2001:db8::1", True),
            ("::1", "::1", True),
            ("10.0.0.0/8", "ten.example", False),
            ("0.0.0.0/0", "ten.example", False),
        ):
            self.assertEqual(self._names(entry, host), expected, (entry, host))

    def test_a_port_limits_an_entry(self) -> None:
        for entry, host in (
            ("example.com:8443", "a.example.com"),
            ("192.0.2.1:8443", "192.0.2.1"),
            ("[2001:db8::1]:8443", "2001:db8::1"),
        ):
            self.assertTrue(self._names(entry, host, 8443))
            self.assertFalse(self._names(entry, host, 443))

    def test_everyone_and_nobody(self) -> None:
        for host in ("example.com", "192.0.2.1", "2001:db8::1"):
            self.assertTrue(self._names("*", host))
            self.assertFalse(NoProxy([]).names(host, 443))

    def test_what_is_no_entry(self) -> None:
        for text in (
            "",
            " ",
            "a b",
            "http://example.com",
            "example.com/",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "example.com:0",
            "example.com:70000",
            "example.com:x",
            "[example.com]",
            "[::1",
            "**",
            "a,b",
            "*example.com",
        ):
            with self.assertRaises(ValueError, msg=text):
                no_proxy(text)

    @given(st.text(alphabet="a1.:*[]/-_ ", max_size=12), st.text(alphabet="a1.-", min_size=1, max_size=8))
    @settings(max_examples=300)
    def test_whatever_the_rule_lets_pass_can_be_asked(self, entry: str, host: str) -> None:
        try:
            no_proxy(entry)
        except ValueError:
            return
        NoProxy([entry]).names(host, 443)

    @given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
    def test_a_network_names_what_is_in_it(self, base: IPv4Address, prefix: int, host: IPv4Address) -> None:
        network = IPv4Network((base, prefix), strict=False)
        self.assertEqual(self._names(str(network), str(host)), host in network)
        self.assertTrue(self._names(str(network), str(base)))


class WrittenAddressTests(SynchronousTestCase):
    def test_every_form_that_resolvers_take_for_an_address(self) -> None:
        for host in (
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "127.0.0.1.",
            "::ffff:127.0.0.1",
        ):
            self.assertEqual(written_address(host), IPv4Address("127.0.0.1"), host)
        self.assertEqual(written_address("::1"), IPv6Address("::1"))
        self.assertEqual(written_address("::ffff:127.0.0.1"), IPv4Address("127.0.0.1"))

    def test_names(self) -> None:
        for host in ("example.com", "localhost", "1.example", "127.0.0.1.example", "0x7g", "a", "1.2.3.4.5"):
            self.assertIsNone(written_address(host), host)


class ProxyTests(SynchronousTestCase):
    def test_what_is_shown(self) -> None:
        for url, shown, port in (
            ("http://proxy.example:3128", "http://proxy.example:3128", 3128),
            ("http://user:hunter2@proxy.example/", "http://proxy.example:80", 80),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128", 3128),
        ):
            proxy = Proxy(url)
            self.assertEqual((str(proxy), proxy.port), (shown, port))
            self.assertNotIn("hunter2", repr(proxy))

    def test_nothing_breaks_out_of_the_request(self) -> None:
        for host in ("a\r\nX: y", "a b", "", "\u00e4", "a\n"):
            with self.assertRaises(ValueError):
                Proxy("http://p").request(host, 443)

    def test_a_user_without_a_password(self) -> None:
        self.assertEqual(Proxy("http://me@p").credentials, b"Basic bWU6")
        self.assertIsNone(Proxy("http://p").credentials)
