"""What is said of a router that shows this or that."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube
from cubehook.doctor.comparing import differences, nearness
from cubehook.doctor.findings import Finding, Level
from cubehook.doctor.router import Standing, judge
from cubehook.operations.ios import ios_config
from tests.doctor.test_router_text import REGISTRATIONS, SECTION

HQ = Cube(
    id="hq",
    provider_url="http://192.0.2.1:8090/cisco_xcc",
    application_url="http://192.0.2.20:8090/xcc/hq",
)
BRANCH = Cube(
    id="branch",
    provider_url="http://192.0.2.2:8090/cisco_xcc",
    application_url="http://192.0.2.20:8090/xcc/branch",
)
SECURE = Cube(
    id="safe",
    provider_url="https://192.0.2.1:443/cisco_xcc",
    application_url="https://192.0.2.20:8443/xcc/safe",
)


def told(findings: Sequence[Finding]) -> str:
    return "\n".join(
        f"{finding.level}: {finding.text}\n"
        + "".join(f"    {line}\n" for line in (*finding.advice, *finding.lines))
        for finding in findings
    )


class JudgeCase(SynchronousTestCase):
    def bad(self, text: str, *cubes: Cube, level: Level = Level.FAILED) -> Finding:
        """The one thing that is wrong."""
        findings = judge(text, None, cubes or [HQ])
        wrong = [each for each in findings if each.level == level]
        self.assertEqual(len(wrong), 1, told(findings))
        return wrong[0]

    def well(self, text: str, *cubes: Cube) -> None:
        findings = judge(text, None, cubes or [HQ])
        self.assertEqual({each.level for each in findings}, {Level.OK}, told(findings))


class Configurations(JudgeCase):
    def test_well(self) -> None:
        self.well(SECTION)
        self.well(SECTION + REGISTRATIONS)

    def test_what_is_to_be_pasted_is_well(self) -> None:
        self.well(ios_config(HQ))
        self.well(ios_config(SECURE), SECURE)

    def remote_url(self, url: str) -> Finding:
        return self.bad(SECTION.replace("http://192.0.2.20:8090/xcc/hq\n", f"{url}\n"))

    def test_mismatches(self) -> None:
        for url, difference in (
            ("http://192.0.2.20:8090/xcc/hq/", "trailing slash: the router's URL ends in one"),
            ("http://192.0.2.21:8090/xcc/hq", "host: the router has 192.0.2.21, the cube 192.0.2.20"),
            ("http://cubehook.example.com:8090/xcc/hq", "a name is not an address"),
            ("http://192.0.2.20:8080/xcc/hq", "port: the router has 8080, the cube 8090"),
            ("http://192.0.2.20/xcc/hq", "port: the router has none written, which is 80"),
            ("https://192.0.2.20:8090/xcc/hq", "scheme: the router has https, the cube http"),
            ("http://192.0.2.20:8090/XCC/hq", "capital and small letters in the path"),
            ("http://192.0.2.20:8090/xcc", "path: the router has /xcc, the cube /xcc/hq"),
            ("http://192.0.2.20:8090//xcc/hq", "slashes in the path"),
        ):
            found = self.remote_url(url)
            self.assertIn(difference, found.text)
            self.assertEqual(
                found.lines, ("uc wsapi", " provider xcc", "  remote-url http://192.0.2.20:8090/xcc/hq")
            )
            self.assertIn(f'set application_url = "{url}" in [cubes.hq]', found.advice[0])

    def test_two_differences_are_both_told(self) -> None:
        found = self.remote_url("http://192.0.2.20:8080/xcc/hq/")
        self.assertIn("port:", found.text)
        self.assertIn("trailing slash:", found.text)

    def test_question_mark_is_typed_with_care(self) -> None:
        cube = Cube(id="q", provider_url=HQ.provider_url, application_url="http://192.0.2.20:8090/x?a=1")
        found = self.bad(SECTION, cube)
        self.assertEqual(found.lines[-1], "  remote-url http://192.0.2.20:8090/x<Ctrl+V>?a=1")

    def test_no_shutdown(self) -> None:
        for there in ("", "  shutdown\n"):
            found = self.bad(SECTION.replace("  no shutdown\n", there))
            self.assertEqual(found.lines, ("uc wsapi", " provider xcc", "  no shutdown"))

    def test_no_shutdown_that_is_not_shown(self) -> None:
        # Where the provider takes registrations, the router only does not print what is its default.
        text = SECTION.replace("  no shutdown\n", "")
        self.well(text + REGISTRATIONS)
        self.assertEqual(
            {each.level for each in judge(text, None, [HQ], standings={"hq": Standing(True)})}, {Level.OK}
        )

    def test_nothing_there(self) -> None:
        found = self.bad("hq#show running-config | section wsapi\nhq#")
        self.assertIn("neither", found.text)
        self.assertIn("  remote-url http://192.0.2.20:8090/xcc/hq", found.lines)
        self.assertEqual(judge("", None, [HQ]), [found])

    def test_no_provider(self) -> None:
        found = self.bad(SECTION.replace("provider xcc", "provider xmf"))
        self.assertIn("`provider xcc` is missing under `uc wsapi` (there is xmf, xcdr)", found.text)
        self.assertEqual(found.lines[:2], ("uc wsapi", " provider xcc"))

    def test_no_remote_url(self) -> None:
        found = self.bad(SECTION.partition("  remote-url")[0])
        self.assertIn("no remote-url", found.text)

    def test_several_remote_urls(self) -> None:
        text = SECTION.replace(
            "  remote-url http://192.0.2.20:8090/xcc/hq\n",
            "  remote-url 1 http://192.0.2.20:8090/xcc/hq\n  remote-url 2 http://192.0.2.40/other\n",
        )
        self.assertIn("http://192.0.2.40/other", self.bad(text, level=Level.WARNING).text)

    def test_numbered_remote_url(self) -> None:
        text = SECTION.replace(
            "remote-url http://192.0.2.20:8090/xcc/hq\n", "remote-url 1 http://192.0.2.20:8090/xcc/h\n"
        )
        self.assertEqual(self.bad(text).lines[-1], "  remote-url 1 http://192.0.2.20:8090/xcc/hq")

    def test_other_mode(self) -> None:
        found = self.bad(SECTION, SECURE)
        self.assertIn("is for `uc secure-wsapi`", found.text)
        self.assertIn("http://192.0.2.1:8090/cisco_xcc", found.advice[0])
        self.assertEqual(found.lines[0], "no uc wsapi")
        self.assertIn("uc secure-wsapi", found.lines)
        found = self.bad(
            "uc secure-wsapi\n message-exchange max-failures 2\n source-address 192.0.2.1\n provider xcc\n"
        )
        self.assertEqual(found.lines[0], "no uc secure-wsapi")
        self.assertIn("https://192.0.2.1:443/cisco_xcc", found.advice[0])

    def test_both_modes(self) -> None:
        found = self.bad(SECTION + "uc secure-wsapi\n provider xcc\n")
        self.assertEqual(found.lines, ("no uc secure-wsapi",))

    def test_secure(self) -> None:
        text = SECTION.replace("uc wsapi", "uc secure-wsapi").replace(
            "http://192.0.2.20:8090/xcc/hq\n", "https://192.0.2.20:8443/xcc/safe\n"
        )
        self.well(text, SECURE)
        self.well(text + "ip http secure-server\nip http secure-port 443\n", SECURE)
        self.assertIn("secure-port", self.bad(text + "ip http secure-port 1026\n", SECURE).text)
        self.assertEqual(
            self.bad(text + "no ip http secure-server\n", SECURE).lines, ("ip http secure-server",)
        )

    def test_web_server(self) -> None:
        self.assertEqual(self.bad(SECTION + "no ip http server\n").lines, ("ip http server",))
        none = self.bad(SECTION + "ip http active-session-modules none\n")
        self.assertEqual(none.lines, ("ip http active-session-modules all",))
        few = self.bad(SECTION + "ip http max-connections 5\n", level=Level.WARNING)
        self.assertEqual(few.lines, ("ip http max-connections 100",))

    def test_web_server_of_a_whole_configuration(self) -> None:
        found = judge(f"hostname hq\n{SECTION}", None, [HQ])
        self.assertIn("`ip http server` is missing", told(found))
        self.assertIn("5 connections at once", told(found))
        self.well(f"hostname hq\nip http server\nip http max-connections 100\n{SECTION}")

    def test_times(self) -> None:
        text = (
            SECTION.replace("max-failures 2", "max-failures 1")
            .replace("keepalive 30", "keepalive 255")
            .replace("negative 10", "negative 120")
            .replace("response-timeout 10", "response-timeout 1")
            .replace("probing max-failures 5", "probing max-failures 1")
        )
        found = self.bad(text, level=Level.WARNING)
        self.assertEqual(found.lines, tuple(ios_config(HQ).splitlines()[6:12]))

    def test_source_address(self) -> None:
        text = SECTION.replace("192.0.2.1\n", "192.0.2.9\n")
        self.assertEqual(self.bad(text, level=Level.WARNING).lines, ("uc wsapi", " source-address 192.0.2.1"))
        cube = Cube(
            id="hq",
            provider_url=HQ.provider_url,
            application_url=HQ.application_url,
            allow_from=("192.0.2.1",),
        )
        self.assertIn('Add "192.0.2.9" to allow_from', self.bad(text, cube).advice[0])
        missing = self.bad(SECTION.replace(" source-address 192.0.2.1\n", ""), level=Level.WARNING)
        self.assertIn("no source-address", missing.text)

    def test_vrf(self) -> None:
        self.assertIn("VRF V", self.bad(SECTION.replace("address 192.0.2.1", "address 192.0.2.1 vrf V")).text)
        interface = "interface Gi0/0\n vrf forwarding V\n ip address 192.0.2.1 255.255.255.0\n"
        web = "ip http server\nip http max-connections 100\n"
        self.assertIn("Gi0/0, in the VRF V", self.bad(interface + web + SECTION).text)


class Registrations(JudgeCase):
    def test_well(self) -> None:
        self.well(REGISTRATIONS)

    def test_nobody(self) -> None:
        self.assertIn("no registration with XCC, nor", self.bad("hq#show wsapi registration all\nhq#").text)
        (found,) = judge(None, "", [HQ])
        self.assertEqual(found.level, Level.FAILED)
        only = "Provider XMF\n====\nid: 1:XMF:rec:2\nappUrl: http://x/y\n"
        self.assertIn("only with xmf", self.bad(only).text)

    def test_another_url(self) -> None:
        text = REGISTRATIONS.replace("8090/xcc/hq", "8090/xcc/hq/").replace(
            "appName: cubehook", "appName: old"
        )
        found = self.bad(text)
        self.assertIn("registered by old, not cube hq", found.text)
        self.assertIn("trailing slash", found.text)

    def test_prober(self) -> None:
        self.assertIn("its prober is NEGATIVE", self.bad(REGISTRATIONS.replace("STEADY", "NEGATIVE")).text)

    def test_another_application_with_our_url(self) -> None:
        text = REGISTRATIONS.replace("appName: cubehook", "appName: old")
        self.assertIn("calls itself old", told(judge(text, None, [HQ])))

    def test_events(self) -> None:
        found = self.bad(REGISTRATIONS.replace("ALERTING|CONNECTED|", ""))
        self.assertIn("lacks the events ALERTING, CONNECTED ", found.text)
        held = REGISTRATIONS.replace("CREATED|", "CREATED|AUTHORIZE_CALL|")
        self.assertIn("holds each call", told(judge(held, None, [HQ])))

    def test_another_registration(self) -> None:
        found = judge(None, REGISTRATIONS, [HQ], standings={"hq": Standing(True, "4CA5E4:XCC:cubehook:5")})
        self.assertIn("here is 4CA5E4:XCC:cubehook:5, the router's is 4CA5E4:XCC:cubehook:4", told(found))

    def test_several_applications(self) -> None:
        text = REGISTRATIONS.replace(":XMF:rec:", ":XCC:rec:").replace("Provider XMF", "Provider XCC")
        self.assertIn(
            "shows 2 registrations with XCC, also http://rec.",
            told(judge(text.partition("registration index: 2")[0], None, [HQ])),
        )


class WhichCube(JudgeCase):
    def test_by_its_url(self) -> None:
        self.well(SECTION, BRANCH, HQ)

    def test_by_its_own_address(self) -> None:
        text = SECTION.replace("xcc/hq", "xcc/wrong")
        self.assertIn("cube hq", self.bad(text, BRANCH, HQ).text)

    def test_by_likeness(self) -> None:
        text = SECTION.replace("xcc/hq", "xcc/branch/").replace(" source-address 192.0.2.1\n", "")
        self.assertIn("cube branch", self.bad(text, BRANCH, HQ).text)

    def test_none(self) -> None:
        text = "uc wsapi\n provider xcc\n  remote-url http://203.0.113.5/somewhere/else/altogether\n"
        found = self.bad(text, BRANCH, HQ)
        self.assertIn("--cube", found.advice[0])
        self.assertEqual(len(found.lines), 2)
        self.assertIn("branch: http://192.0.2.20:8090/xcc/branch", "\n".join(found.lines))

    def test_no_cube(self) -> None:
        (found,) = judge(SECTION, None, [])
        self.assertEqual(found.level, Level.FAILED)

    def test_no_router(self) -> None:
        self.assertIn("neither", self.bad("Dear all, it does not work.").text)


_URLS = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP", ""]),
        st.sampled_from(["192.0.2.1", "[::1]", "[", "a.example", "A.example", ""]),
        st.sampled_from(["", ":8090", ":x", ":0", ":99999999"]),
        st.sampled_from(["", "/", "/x", "/X", "/x/", "/x?y", "//x", "/x#y"]),
    ),
)
_PIECES = st.one_of(
    st.sampled_from(
        [*SECTION.splitlines(), *REGISTRATIONS.splitlines(), "ip http server", "uc secure-wsapi"]
    ),
    _URLS.map("remote-url {}".format),
    _URLS.map("appUrl: {}".format),
    st.text(max_size=20),
)


class AnyText(SynchronousTestCase):
    @given(
        st.lists(_PIECES, max_size=30).map("\n".join),
        st.lists(st.sampled_from([HQ, BRANCH, SECURE]), unique_by=lambda cube: cube.id),
        st.none() | st.lists(_PIECES, max_size=10).map("\r\n".join),
    )
    def test_something_is_always_said(self, text: str, cubes: list[Cube], other: str | None) -> None:
        self.assertTrue(judge(text, other, cubes))

    def test_port_that_is_written(self) -> None:
        (told,) = differences("http://a.example/x", "http://a.example:80/x")
        self.assertIn("port: 80 is written in one and not in the other", told)

    @given(_URLS, _URLS)
    def test_differences(self, one: str, other: str) -> None:
        self.assertEqual(differences(one, other) == [], one == other)
        self.assertTrue(0 <= nearness(one, other) <= 1)
        self.assertEqual(nearness(one, other) == 1, one == other)
