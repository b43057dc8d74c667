"""Reading what was copied from a router's terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.doctor.router_text import RouterText, Service, read

SECTION = """\
uc wsapi
 message-exchange max-failures 2
 response-timeout 10
 probing max-failures 5
 probing interval keepalive 30
 probing interval negative 10
 source-address 192.0.2.1
 provider xcc
  no shutdown
  remote-url http://192.0.2.20:8090/xcc/hq
 !
 provider xcdr
  shutdown
  remote-url 1 http://192.0.2.30:8080/cdr
  remote-url 2 http://192.0.2.31:8080/cdr
"""

REGISTRATIONS = """\
Provider XCC
=====================================================
registration index: 1
  id: 4CA5E4:XCC:cubehook:4
  appUrl:http://192.0.2.20:8090/xcc/hq
  appName: cubehook
  provUrl: http://192.0.2.1:8090/cisco_xcc
  prober state: STEADY
  connEventsFilter: CREATED|REDIRECTED|ALERTING|CONNECTED|TRANSFERRED|CALL_DELIVERY|DISCONNECTED|\
HANDOFF_JOIN|HANDOFF_LEAVE
  mediaEventsFilter:
  blockingEventTimeoutSec: 1
  blockingTimeoutHandle: CONTINUE_PROCESSING
Provider XMF
=====================================================
registration index: 1
  id: 2E7C3034:XMF:rec:26
  appUrl:http://rec.example.com:8094/xmf
  appName: rec
  provUrl: http://192.0.2.1:8090/cisco_xmf
  prober state: STEADY
registration index: 2
  id: 2E7C3034:XMF:rec2:27
  appUrl:http://rec2.example.com:8094/xmf
"""


def service(text: str) -> Service:
    shown = read(text)
    assert shown.config is not None
    (found,) = shown.config.services
    return found


def xcc_urls(text: str) -> list[str]:
    xcc = service(text).provider("xcc")
    assert xcc is not None
    return [url for _, url in xcc.remote_urls]


def app_urls(text: str) -> list[str | None]:
    return [each.app_url for each in read(text).registrations or ()]


class Configurations(SynchronousTestCase):
    def check_section(self, text: str) -> None:
        found = service(text)
        self.assertFalse(found.secure)
        self.assertEqual(found.source_address, "192.0.2.1")
        self.assertEqual((found.max_failures, found.response_timeout), (2, 10))
        self.assertEqual((found.probing_max_failures, found.keepalive, found.negative), (5, 30, 10))
        xcc, xcdr = found.providers
        self.assertEqual((xcc.name, xcc.shutdown), ("xcc", False))
        self.assertEqual(xcc.remote_urls, [(None, "http://192.0.2.20:8090/xcc/hq")])
        self.assertEqual((xcdr.name, xcdr.shutdown), ("xcdr", True))
        self.assertEqual([number for number, _ in xcdr.remote_urls], [1, 2])

    def test_as_it_is(self) -> None:
        self.check_section(SECTION)

    def test_without_indentation(self) -> None:
        self.check_section("\n".join(line.strip() for line in SECTION.splitlines()))

    def test_line_ends(self) -> None:
        for end in ("\r\n", "\r", "\r\r\n", "\n\n"):
            self.check_section(SECTION.replace("\n", end))

    def test_more(self) -> None:
        lines = SECTION.splitlines()
        for more in (
            " --More-- \b\b\b\b\b\b\b\b\b        \b\b\b\b\b\b\b\b\b",
            " --More-- \r         \r",
            "\x1b[7m--More--\x1b[m\r\x1b[K",
        ):
            for at in range(1, len(lines)):
                text = "\n".join([*lines[:at], more + lines[at], *lines[at + 1 :]])
                self.check_section(text)

    def test_more_on_a_line_of_its_own(self) -> None:
        self.check_section(SECTION.replace("\n", "\n --More-- \n"))

    def test_prompts_and_commands(self) -> None:
        self.check_section(
            f"hq-cube>en\nPassword:\nhq-cube#sh run | sec wsapi\n{SECTION}hq-cube#\nhq-cube#exit\n"
        )

    def test_typed_as_commands(self) -> None:
        typed = "\n".join(f"hq-cube(config-uc-wsapi)#{line.strip()}" for line in SECTION.splitlines())
        self.check_section(f"hq-cube#conf t\n{typed}\nhq-cube(config)#end")

    def test_in_a_whole_configuration(self) -> None:
        text = (
            "Building configuration...\n\nCurrent configuration : 9123 bytes\n!\nversion 15.3\n"
            "hostname hq-cube\n!\ninterface GigabitEthernet0/0\n ip address 192.0.2.1 255.255.255.0\n"
            " ip address 192.0.2.2 255.255.255.0 secondary\n!\n"
            "interface GigabitEthernet0/1\n vrf forwarding MGMT\n"
            " ip address 198.51.100.1 255.255.255.0\n shutdown\n!\n"
            "ip http server\nno ip http secure-server\nip http max-connections 100\n"
            "ip http timeout-policy idle 600 life 86400 requests 86400\nhttp client connection persistent\n"
            f"{SECTION}!\nvoice-port 0/1/0\n shutdown\n!\nend\n"
        )
        self.check_section(text)
        config = read(text).config
        assert config is not None
        self.assertTrue(config.whole)
        http = config.http
        self.assertEqual((http.server, http.secure_server, http.max_connections), (True, False, 100))
        first, second = config.interfaces
        self.assertEqual(first.addresses, ["192.0.2.1", "192.0.2.2"])
        self.assertEqual((second.vrf, second.shutdown, first.shutdown), ("MGMT", True, False))

    def test_that_of_another_section_is_not_taken(self) -> None:
        self.check_section(SECTION.replace(" !\n", "") + "voice class x\n shutdown\n response-timeout 99\n")

    def test_part_is_not_whole(self) -> None:
        config = read(f"hq#show running-config | section wsapi\n{SECTION}").config
        assert config is not None
        self.assertFalse(config.whole)
        config = read("hq#show running-config | include ip http\nip http server\n").config
        assert config is not None
        self.assertEqual((config.whole, config.http.server), (False, True))

    def test_secure(self) -> None:
        found = service(SECTION.replace("uc wsapi", "uc secure-wsapi").replace("http://", "https://"))
        self.assertTrue(found.secure)

    def test_url_that_was_wrapped(self) -> None:
        url = "http://cubehook.voice.example.com:8090/telephony/gateways/headquarters/first-floor/hq"
        for width in (72, 79, 80):
            line = f"  remote-url {url}"
            text = f"uc wsapi\n provider xcc\n{line[:width]}\n{line[width:]}\n no shutdown\n"
            self.assertEqual(xcc_urls(text), [url], width)
            self.assertEqual(service(text).providers[0].shutdown, False)
        self.assertEqual(xcc_urls(f"uc wsapi\nprovider xcc\nremote-url\n{url}\n"), [url])

    def test_long_line_that_was_not_wrapped(self) -> None:
        url = "http://cubehook.voice.example.com:8090/telephony/gateways/headquarters/first-floor"
        self.assertEqual(xcc_urls(f"uc wsapi\n provider xcc\n  remote-url {url}\nshutdown\n"), [url])

    def test_several_remote_urls(self) -> None:
        text = "uc wsapi\nprovider xcc\nremote-url 1 http://a/1\nremote-url 2 http://b/2\n"
        self.assertEqual(xcc_urls(text), ["http://a/1", "http://b/2"])

    def test_source_in_a_vrf(self) -> None:
        self.assertEqual(service("uc wsapi\nsource-address 192.0.2.1 vrf VOICE\n").source_vrf, "VOICE")


class Registrations(SynchronousTestCase):
    def check_list(self, text: str) -> None:
        shown = read(text).registrations
        assert shown is not None
        first, second, third = shown
        self.assertEqual((first.provider, first.index), ("xcc", "1"))
        self.assertEqual(first.id, "4CA5E4:XCC:cubehook:4")
        self.assertEqual(first.app_url, "http://192.0.2.20:8090/xcc/hq")
        self.assertEqual((first.app_name, first.prober_state), ("cubehook", "STEADY"))
        self.assertEqual(first.prov_url, "http://192.0.2.1:8090/cisco_xcc")
        self.assertEqual((first.events or [])[0], "CREATED")
        self.assertEqual((first.events or [])[-1], "HANDOFF_LEAVE")
        self.assertEqual((second.provider, third.provider), ("xmf", "xmf"))
        self.assertEqual(third.app_url, "http://rec2.example.com:8094/xmf")

    def test_as_it_is(self) -> None:
        self.check_list(REGISTRATIONS)

    def test_untidy(self) -> None:
        self.check_list("\n".join(line.strip() for line in REGISTRATIONS.splitlines()))
        self.check_list(REGISTRATIONS.replace("\n", "\r\n"))
        self.check_list(f"hq#show wsapi registration all\n{REGISTRATIONS}hq#")
        self.check_list(REGISTRATIONS.replace("\n", "\n --More-- \r        \r"))
        self.check_list(REGISTRATIONS.replace("appUrl:", "app URL : ").replace("provUrl:", "provURL ="))

    def test_filter_that_was_wrapped(self) -> None:
        text = REGISTRATIONS.replace("CALL_DELIVERY|", "CALL_DEL\nIVERY|")
        first = (read(text).registrations or [])[0]
        self.assertIn("CALL_DELIVERY", first.events or ())

    def test_without_headings(self) -> None:
        text = "\n".join(line for line in REGISTRATIONS.splitlines() if ":" in line and "index" not in line)
        self.assertEqual([each.provider for each in read(text).registrations or ()], ["xcc", "xmf", "xmf"])

    def test_index_begins_another(self) -> None:
        text = "appName: a\nregistration index: 2\nappUrl: http://b/\n"
        self.assertEqual([each.app_name for each in read(text).registrations or ()], ["a", None])

    def test_none(self) -> None:
        self.assertEqual(read("hq#show wsapi registration all\nhq#").registrations, [])
        self.assertIsNone(read("hq#show wsapi registration all\nhq#").config)

    def test_after_a_configuration(self) -> None:
        text = f"hq#sh run | s wsapi\n{SECTION}hq#sh wsapi reg all\n{REGISTRATIONS}hq#"
        self.check_list(text)
        self.assertEqual(xcc_urls(text), ["http://192.0.2.20:8090/xcc/hq"])
        text = f"{REGISTRATIONS}{SECTION}"
        self.assertEqual(len(app_urls(text)), 3)
        self.assertEqual(xcc_urls(text), ["http://192.0.2.20:8090/xcc/hq"])


_LINES = [
    *SECTION.splitlines(),
    *REGISTRATIONS.splitlines(),
    "ip http server",
    "interface Gi0/0",
    "hq#sh run",
]
_PIECES = st.one_of(
    st.sampled_from(_LINES),
    st.sampled_from(_LINES).flatmap(lambda line: st.integers(0, len(line)).map(lambda at: line[:at])),
    st.text(max_size=30),
    st.sampled_from(
        ["\r", "\b\b\b", " --More-- ", "\x1b[K", "remote-url ", "remote-url 1", "id:", "appUrl:", "===="]
    ),
)


class AnyText(SynchronousTestCase):
    @given(st.text())
    def test_nothing_raises(self, text: str) -> None:
        self.assertIsInstance(read(text), RouterText)

    @given(st.lists(_PIECES, max_size=40), st.sampled_from(["\n", "\r\n", "\r", ""]))
    def test_nothing_that_is_nearly_right_raises(self, pieces: list[str], end: str) -> None:
        self.assertIsInstance(read(end.join(pieces)), RouterText)
