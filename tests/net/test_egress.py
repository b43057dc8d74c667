"""The egress policy: what is denied whatever is written, and what a configuration changes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Egress
from cubehook.net.egress import BlockedError, EgressPolicy, parse_networks, policy_from

EVERYTHING = EgressPolicy(allow=[IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])
DEFAULT = EgressPolicy()

ALWAYS_DENIED = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fd00:ec2::254",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.255.255.255",
    "ff02::1",
    "255.255.255.255",
]


def hidden(address: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address in which `address` can hide."""
    number = int(address)
    harmless = int(IPv4Address("192.0.2.1"))
    return [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(number),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address(0x2002 << 112 | number << 80 | 0x1234),
        IPv6Address(0x20010000 << 96 | number << 64 | (harmless ^ 0xFFFFFFFF)),
        IPv6Address(0x20010000 << 96 | harmless << 64 | (number ^ 0xFFFFFFFF)),
    ]


def denied(policy: EgressPolicy, address: object) -> bool:
    try:
        policy.check(str(address))
    except BlockedError:
        return True
    return False


class PolicyTests(SynchronousTestCase):
    def test_always_denied_whatever_is_allowed(self) -> None:
        for address in ALWAYS_DENIED:
            self.assertTrue(denied(EVERYTHING, address), address)
            self.assertTrue(denied(DEFAULT, address), address)

    def test_allowed_by_name_is_still_denied(self) -> None:
        policy = EgressPolicy(allow=[IPv4Network("169.254.169.254/32"), IPv6Network("fd00:ec2::254/128")])
        self.assertTrue(denied(policy, "169.254.169.254"))
        self.assertTrue(denied(policy, "fd00:ec2::254"))

    def test_metadata_that_may_be_somebodys_own_is_denied_unless_allowed_by_name(self) -> None:
        for text, around in (
            ("100.100.100.200", "100.64.0.0/10"),
            ("fd20:ce::254", "fd20:ce::/32"),
        ):
            named = policy_from(Egress(allow=(text,)))
            self.assertFalse(denied(named, text))
            for policy in (DEFAULT, EVERYTHING, policy_from(Egress(allow=(around,)))):
                self.assertTrue(denied(policy, text), text)
            self.assertTrue(denied(policy_from(Egress(allow=(text,), deny=(text,))), text))
            neighbour = str(ip_address(text) + 1)
            self.assertFalse(denied(DEFAULT, neighbour))
            with self.assertRaises(BlockedError) as caught:
                policy_from(Egress(allow=(around,))).check(text)
            self.assertEqual(
                caught.exception.rule,
                f"it is a cloud's metadata service; add {text} itself to egress.allow if it is meant",
            )
        for disguise in hidden(IPv4Address("100.100.100.200")):
            self.assertTrue(denied(EVERYTHING, disguise), disguise)

    def test_loopback_is_denied_unless_allowed(self) -> None:
        for address in ("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(denied(DEFAULT, address), address)
            self.assertFalse(denied(EVERYTHING, address), address)
        only_v4 = EgressPolicy(allow=[IPv4Network("127.0.0.0/8")])
        self.assertFalse(denied(only_v4, "127.0.0.1"))
        self.assertTrue(denied(only_v4, "::1"))

    def test_private_and_public_are_allowed_unless_denied(self) -> None:
        for address in (
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd12::1",
            "192.0.2.1",
            "2600::1",
        ):
            self.assertFalse(denied(DEFAULT, address), address)
        policy = EgressPolicy(deny=[IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")])
        self.assertTrue(denied(policy, "10.1.2.3"))
        self.assertTrue(denied(policy, "fd12::1"))
        self.assertFalse(denied(policy, "11.0.0.1"))

    def test_the_narrowest_network_decides(self) -> None:
        policy = EgressPolicy(
            deny=[IPv4Network("10.0.0.0/8"), IPv4Network("10.1.2.3/32")], allow=[IPv4Network("10.1.0.0/16")]
        )
        self.assertTrue(denied(policy, "10.2.0.1"))
        self.assertFalse(denied(policy, "10.1.0.1"))
        self.assertTrue(denied(policy, "10.1.2.3"))

    def test_deny_wins_a_tie(self) -> None:
        network = IPv4Network("127.0.0.0/8")
        self.assertTrue(denied(EgressPolicy(deny=[network], allow=[network]), "127.0.0.1"))

    def test_what_is_no_address_is_denied(self) -> None:
        for text in ("", "localhost", "127.1", "2130706433", "0x7f000001", "1.2.3.4\n", "::1::"):
            self.assertTrue(denied(EVERYTHING, text), text)

    def test_the_error_names_the_rule_and_what_to_write(self) -> None:
        with self.assertRaises(BlockedError) as caught:
            DEFAULT.check("127.0.0.1")
        self.assertEqual(caught.exception.address, "127.0.0.1")
        self.assertEqual(
            str(caught.exception),
            "127.0.0.1 may not be reached: "
            "loopback is denied; add 127.0.0.0/8 to egress.allow if it is meant",
        )
        with self.assertRaises(BlockedError) as caught:
            DEFAULT.check("::1")
        self.assertIn("::1/128", caught.exception.rule)
        with self.assertRaises(BlockedError) as caught:
            EgressPolicy(deny=[IPv4Network("10.0.0.0/8")]).check("::ffff:10.0.0.1")
        self.assertEqual(caught.exception.rule, "it holds 10.0.0.1, and 10.0.0.0/8 is in egress.deny")

    @settings(max_examples=100)
    @given(st.ip_addresses(v=4))
    def test_hidden_addresses_are_judged_as_the_hidden_one(self, address: IPv4Address) -> None:
        deny = EgressPolicy(deny=[IPv4Network((address, 32))])
        for disguise in hidden(address):
            if int(disguise) > 1:
                self.assertTrue(denied(deny, disguise), disguise)
                self.assertEqual(denied(DEFAULT, disguise), denied(DEFAULT, address), disguise)

    def test_known_addresses_in_every_disguise(self) -> None:
        for text in ("169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1"):
            for disguise in hidden(IPv4Address(text)):
                self.assertTrue(denied(DEFAULT, disguise), disguise)

    @settings(max_examples=100)
    @given(st.ip_addresses(), st.integers(0, 32), st.integers(0, 32))
    def test_an_address_is_denied_by_its_network_unless_a_narrower_one_allows(
        self, address: IPv4Address | IPv6Address, deny: int, allow: int
    ) -> None:
        if denied(EVERYTHING, address):
            return
        network = IPv4Network if address.version == 4 else IPv6Network
        policy = EgressPolicy(
            deny=[network((address, deny), strict=False)], allow=[network((address, allow), strict=False)]
        )
        # An address that holds an IPv4 address is judged by both faces; the policy names its own only.
        if address.version == 4 or not denied(DEFAULT, address):
            self.assertEqual(denied(policy, address), deny >= allow)


class ParseTests(SynchronousTestCase):
    def test_networks_and_bare_addresses(self) -> None:
        networks, errors = parse_networks(["10.0.0.0/8", "192.0.2.1", "fd00::/8", "::ffff:10.0.0.0/104"])
        self.assertEqual(errors, [])
        self.assertEqual(
            networks,
            [
                IPv4Network("10.0.0.0/8"),
                IPv4Network("192.0.2.1/32"),
                IPv6Network("fd00::/8"),
                IPv4Network("10.0.0.0/8"),
            ],
        )

    def test_every_error_is_told_with_its_index(self) -> None:
        networks, errors = parse_networks(["10.0.0.1/8", "192.0.2.0/24", "nonsense", "1.2.3.4/33"])
        self.assertEqual(networks, [IPv4Network("192.0.2.0/24")])
        self.assertEqual([index for index, _ in errors], [0, 2, 3])
        self.assertIn('"10.0.0.0/8"', errors[0][1])
        self.assertIn("CIDR", errors[1][1])

    def test_the_policy_of_a_configuration(self) -> None:
        policy = policy_from(Egress(deny=("10.0.0.0/8",), allow=("127.0.0.0/8",)))
        self.assertTrue(denied(policy, "10.0.0.1"))
        self.assertFalse(denied(policy, "127.0.0.1"))
        with self.assertRaises(ValueError) as caught:
            policy_from(Egress(deny=("x",), allow=("y",)))
        self.assertIn("egress.deny[0]", str(caught.exception))
        self.assertIn("egress.allow[0]", str(caught.exception))
