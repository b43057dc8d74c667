"""Numbers as gateways write them."""

from __future__ import annotations

import phonenumbers
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.calls.numbers import Numbers
from cubehook.xcc.messages import AddrData


def read(addr: str | None, type: str | None = "E164", region: str | None = None) -> str | None:
    return Numbers(region).number(AddrData(addr, type))


class E164Tests(SynchronousTestCase):
    def test_with_plus(self) -> None:
        for type in ("E164", "URI", "OTHER", None):
            self.assertEqual(read("+12512501663", type), "+12512501663")

    def test_separators_are_dropped(self) -> None:
        self.assertEqual(read("+1 (251) 250-1663"), "+12512501663")
        self.assertEqual(read("tel:+1-251-250-1663;phone-context=example.com", "URI"), "+12512501663")

    def test_declared_without_plus(self) -> None:
        self.assertEqual(read("12512501663"), "+12512501663")
        self.assertEqual(read("442079460958"), "+442079460958")
        self.assertEqual(read("493012345678", "E164", "US"), "+493012345678")

    def test_not_declared_without_plus(self) -> None:
        """A URI's user may be any string of digits: without a region it is not known what it is."""
        self.assertEqual(read("sip:12512501663@192.0.2.10:5060", "URI"), "12512501663")
        self.assertEqual(read("12512501663", "OTHER"), "12512501663")

    def test_numbers_that_do_not_exist_are_not_completed(self) -> None:
        self.assertEqual(read("99912345678"), "99912345678")
        self.assertEqual(read("2501663", "E164", "US"), "2501663")

    def test_malformed_plus(self) -> None:
        for addr in ("+", "+0123456789", "+1001", "+1234567890123456", "+abc"):
            self.assertEqual(read(addr), addr)


class UriTests(SynchronousTestCase):
    def test_plus_in_uri(self) -> None:
        for uri in (
            "sip:+12512501663@192.0.2.10:5060",
            "sips:+12512501663@example.com;transport=tls",
            "SIP:+12512501663@192.0.2.10",
            "sip:+12512501663;npdi;rn=+12512500000@192.0.2.10;user=phone",
            "sip:+12512501663:secret@192.0.2.10",
            "sip:%2B12512501663@192.0.2.10",
            '"Front desk" <sip:+12512501663@192.0.2.10>;tag=1',
            "<tel:+12512501663>",
            "tel:%2B12512501663",
            "+12512501663@192.0.2.10",
            "sip:+12512501663",
            "sip:+12512501663;user=phone",
            "tel:+12512501663;phone-context=+49",
        ):
            self.assertEqual(read(uri, "URI"), "+12512501663", uri)

    def test_national_in_uri(self) -> None:
        self.assertEqual(read("sip:2512501663@192.0.2.10", "URI", "US"), "+12512501663")

    def test_extension_in_uri(self) -> None:
        self.assertEqual(read("sip:1001@192.0.2.10:5060", "URI", "US"), "1001")
        self.assertEqual(read("tel:1001;phone-context=+1251", "URI", "US"), "1001")

    def test_local_to_elsewhere(self) -> None:
        """The cube is in Germany, the number is not: it is no German number, nor can it be completed."""
        for uri in ("tel:02079460958;phone-context=+44", "sip:02079460958;Phone-Context=+44@192.0.2.10"):
            self.assertEqual(read(uri, "URI", "DE"), "02079460958", uri)
            self.assertEqual(read(uri, "E164", "GB"), "02079460958", uri)

    def test_alphanumeric_stays_whole(self) -> None:
        for uri in ("sip:alice@example.com", "sip:%00123@example.com", "tel:alice", "alice"):
            self.assertEqual(read(uri, "URI", "US"), uri)


class NationalTests(SynchronousTestCase):
    def test_completed_by_the_region(self) -> None:
        for addr, region, expected in [
            ("2512501663", "US", "+12512501663"),
            ("12512501663", "US", "+12512501663"),
            ("251-250-1663", "us", "+12512501663"),
            ("02079460958", "GB", "+442079460958"),
            ("2079460958", "GB", "+442079460958"),
            ("0612345678", "IT", "+390612345678"),
            ("912345678", "ES", "+34912345678"),
        ]:
            self.assertEqual(read(addr, "OTHER", region), expected, addr)

    def test_international_prefix(self) -> None:
        self.assertEqual(read("011442079460958", "OTHER", "US"), "+442079460958")
        self.assertEqual(read("00442079460958", "OTHER", "DE"), "+442079460958")
        self.assertEqual(read("00442079460958", "OTHER"), "00442079460958")

    def test_no_region(self) -> None:
        self.assertEqual(read("02079460958", "OTHER"), "02079460958")

    def test_unknown_region_completes_nothing(self) -> None:
        self.assertEqual(read("2512501663", "OTHER", "XX"), "2512501663")

    def test_short_numbers_stay(self) -> None:
        for addr in ("1001", "911", "112", "116117", "*67", "#31#", "*672512501663"):
            for region in ("US", "DE", None):
                self.assertEqual(read(addr, "E164", region), addr)

    def test_extensions_that_are_numbers_somewhere(self) -> None:
        """61234 is a subscriber's number in Finland, 6834000 one on Niue; here they are just short."""
        self.assertEqual(read("61234", "E164", "FI"), "61234")
        self.assertEqual(read("6834000", "E164", "US"), "6834000")

    def test_national_form_before_international(self) -> None:
        """In Minnesota 507 234 5678 is dialled as it stands; with a + it would be in Panama."""
        self.assertEqual(read("5072345678", "E164", "US"), "+15072345678")

    def test_two_readings_and_no_telling(self) -> None:
        self.assertEqual(read("5072345678", "E164"), "5072345678")
        # London, or a town in Frisia without its trunk prefix.
        self.assertEqual(read("442079460958", "E164", "DE"), "442079460958")
        # A Chinese mobile, or Texas; whatever the gateway says of it.
        self.assertEqual(read("13612345678", "E164", "CN"), "13612345678")
        self.assertEqual(read("13612345678", "OTHER", "CN"), "13612345678")


class NobodyTests(SynchronousTestCase):
    def test_withheld(self) -> None:
        for addr in (
            None,
            "",
            " ",
            "anonymous",
            "Anonymous",
            "sip:anonymous@anonymous.invalid",
            "sip:Anonymous@Anonymous.Invalid:5060",
            '"Anonymous" <sip:anonymous@192.0.2.10>',
            "sip:c8oqz84zk7z@anonymous.invalid",
            "sip:unavailable@unknown.invalid",
            "unknown",
            "RESTRICTED",
            "private",
            "Private Number",
            "Restricted Number",
            "number withheld",
            "unavailable",
            "sip:192.0.2.10:5060",
            "sip:@192.0.2.10",
            "tel:",
        ):
            self.assertIsNone(read(addr, "URI"), addr)

    def test_names_that_only_resemble(self) -> None:
        for addr in ("sip:private1@example.com", "sip:anonymouse@example.com"):
            self.assertEqual(read(addr, "URI"), addr)

    def test_no_address(self) -> None:
        self.assertIsNone(Numbers().number(None))


class AnyTextTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(
        st.one_of(
            st.text(max_size=40),
            st.text("0123456789+*#-. ()@:;<>%siptel", max_size=24),
            st.from_regex(r"(sips?|tel):[+0-9a-z;=%]{0,20}(@[a-z.0-9]{0,12})?", fullmatch=True),
        ),
        st.sampled_from(["E164", "URI", "OTHER", None]),
        st.sampled_from([None, "US", "DE", "IT"]),
    )
    def test_any_text(self, addr: str, type: str | None, region: str | None) -> None:
        """Whatever comes is read without an exception, and what is read is read the same again."""
        number = read(addr, type, region)
        if number is None:
            return
        self.assertTrue(number)
        if number.startswith("+") and number[1:].isascii() and number[1:].isdigit():
            self.assertEqual(read(number, type, region), number)

    def test_long_text_is_cut(self) -> None:
        self.assertEqual(len(read("x" * 1_000_000) or ""), 256)

    @settings(max_examples=100)
    @given(st.integers(10**6, 10**12 - 1), st.sampled_from(["US", "DE", "GB", "CN", "ES"]))
    def test_completed_numbers_exist(self, number: int, region: str) -> None:
        completed = read(str(number), "E164", region)
        assert completed is not None
        if completed.startswith("+"):
            self.assertTrue(phonenumbers.is_valid_number(phonenumbers.parse(completed)))
        else:
            self.assertEqual(completed, str(number))
