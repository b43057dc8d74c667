"""The examination of a service that does not run, in this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.doctor import examination, state, visiting
from cubehook.doctor.examination import Asked, NoCubeError, examine, is_well
from cubehook.doctor.findings import Finding, Level, as_builtins
from tests.functional.harness import free_port
from tests.transports.support import Authority, Receiver, answering

reactor: Any = installed
IOS = b"HTTP/1.1 405 Method Not Allowed\r\nServer: cisco-IOS\r\nContent-Length: 0\r\n"


class Examinations(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.port = free_port()
        self.gateway = Receiver(self, answering(IOS + b"\r\n"))
        self.receiver = Receiver(self)

    async def examine(self, more: str = "", *, cubes: str | None = None, **asked: Any) -> list[Finding]:
        path = self.folder / "cubehook.toml"
        gateway = f"http://127.0.0.1:{self.gateway.port}/cisco_xcc"
        if cubes is None:
            ours = f"http://127.0.0.1:{self.port}/xcc/hq"
            cubes = f'[cubes.hq]\nprovider_url = "{gateway}"\napplication_url = "{ours}"\n'
        path.write_text(
            f'state_dir = "state"\n[listen]\ncubes = ["tcp:{self.port}:interface=127.0.0.1"]\nconsole = []\n'
            f'[egress]\nallow = ["127.0.0.0/8"]\n{cubes}{more}'
        )
        return await examine(reactor, Asked(config=path, **asked), time.time)

    def of(self, findings: list[Finding], area: str) -> tuple[Level, str]:
        """The worst that was found of an area, and all that was said of it."""
        told = [each for each in findings if each.area == area]
        order = [Level.FAILED, Level.WARNING, Level.SKIPPED, Level.OK]
        said = "\n".join("\n".join((each.text, *each.advice)) for each in told)
        return min((each.level for each in told), key=order.index), said

    async def test_well_before_the_first_start(self) -> None:
        webhook = f'[webhooks.crm]\nurl = "{self.receiver.url}"\n'
        findings = await self.examine(webhook)
        self.assertTrue(is_well(findings), as_builtins(findings))
        self.assertEqual(
            list(dict.fromkeys(each.area for each in findings)),
            [
                "configuration",
                "service",
                "state folder",
                "database",
                "listeners",
                "cube hq",
                "webhook crm",
                "clock",
            ],
        )
        # The gateway is asked nothing but a GET, and the receiver nothing at all.
        self.assertEqual([each.line for each in self.gateway.requests], ["GET /cisco_xcc HTTP/1.1"])
        self.assertEqual(self.receiver.requests, [])
        self.assertFalse((self.folder / "state").exists())

    async def test_configuration_with_errors(self) -> None:
        findings = await self.examine('[webhooks.crm]\nurl = "nowhere"\nmethod = "GET"\n[log]\nlevle = 1\n')
        told = [each.text for each in findings if each.level is Level.FAILED]
        self.assertEqual(len(told), 3, told)
        self.assertIn("webhooks.crm.url", "\n".join(told))

    async def test_port_that_is_taken(self) -> None:
        self.port = self.receiver.port
        level, said = self.of(await self.examine(), "listeners")
        self.assertIs(level, Level.FAILED)
        self.assertIn(f"port {self.port} is taken by ", said)

    async def test_application_url_that_leads_elsewhere(self) -> None:
        gateway = f"http://127.0.0.1:{self.gateway.port}/cisco_xcc"
        cubes = f'[cubes.hq]\nprovider_url = "{gateway}"\napplication_url = "%s"\n'
        for url, level, words in (
            (f"http://127.0.0.1:{free_port()}/xcc/hq", Level.FAILED, "listen.cubes has"),
            (f"http://192.0.2.20:{self.port}/xcc/hq", Level.WARNING, "is no address of this machine"),
            (f"https://127.0.0.1:{self.port}/xcc/hq", Level.FAILED, "is https, and what listens on port"),
            (f"http://127.0.0.1:{self.receiver.port}/xcc/hq", Level.WARNING, "there passes it on"),
            ("http://nowhere.invalid/xcc/hq", Level.FAILED, "does not resolve here"),
        ):
            found, said = self.of(await self.examine(cubes=cubes % url), "cube hq")
            self.assertEqual(found, level, said)
            self.assertIn(words, said)

    async def test_gateways(self) -> None:
        for answer, level, words in (
            (b"HTTP/1.1 404 Not Found\r\n\r\n", Level.WARNING, "need not be a router's"),
            (b"HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n", Level.WARNING, "need not be a router's"),
            (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", Level.WARNING, "redirect to /login"),
            (b"HTTP/1.1 401 Unauthorized\r\nServer: cisco-IOS\r\n\r\n", Level.WARNING, "wants a login"),
            (b"HTTP/1.1 \xb2\r\n\r\n", Level.WARNING, "no HTTP status"),
            (b"SSH-2.0-Cisco-1.25\r\n", Level.FAILED, "not as a web server does"),
        ):
            self.gateway.script = answering(answer)
            found, said = self.of(await self.examine(), "cube hq")
            self.assertEqual(found, level, said)
            self.assertIn(words, said)

    async def test_clock_by_the_gateway(self) -> None:
        date = b"Date: Sat, 23 Nov 2024 12:00:00 GMT\r\n\r\n"
        self.gateway.script = answering(IOS + date)
        level, said = self.of(await self.examine(), "clock")
        self.assertIs(level, Level.FAILED)
        self.assertIn(f"ahead of the gateway 127.0.0.1:{self.gateway.port}", said)

    async def test_dead_receivers(self) -> None:
        refusing = free_port()
        findings = await self.examine(
            f'[webhooks.dead]\nurl = "http://127.0.0.1:{refusing}/?token=hunter2"\n'
            '[webhooks.meta]\nurl = "http://169.254.169.254/"\n'
            f'[webhooks.mq]\nurl = "amqp://guest:hunter2@127.0.0.1:{refusing}"\ntransport = "amqp"\n'
            'options = { exchange = "calls" }\n'
            '[webhooks.file]\ntransport = "jsonl"\noptions = { path = "calls.jsonl" }\n'
            '[webhooks.off]\nurl = "http://127.0.0.1/"\nenabled = false\n'
        )
        for name in ("dead", "mq"):
            level, said = self.of(findings, f"webhook {name}")
            self.assertEqual(level, Level.FAILED)
            self.assertIn(f"127.0.0.1:{refusing} cannot be reached: it refused the connection", said)
        self.assertIn("always denied", self.of(findings, "webhook meta")[1])
        self.assertIs(self.of(findings, "webhook file")[0], Level.OK)
        self.assertIs(self.of(findings, "webhook off")[0], Level.SKIPPED)
        self.assertNotIn("hunter2", str(as_builtins(findings)))

    async def test_receivers_certificates(self) -> None:
        authority = Authority()
        secure = Receiver(self, tls=authority.server("127.0.0.1"))
        (self.folder / "state").mkdir(mode=0o750)
        authority.write(self.folder / "state" / "ca.pem")
        findings = await self.examine(
            f'[webhooks.own]\nurl = "{secure.url}"\noptions = {{ ca_file = "ca.pem" }}\n'
            f'[webhooks.strange]\nurl = "{secure.url}"\n'
            f'[webhooks.blind]\nurl = "{secure.url}"\noptions = {{ insecure = true }}\n'
            f'[webhooks.broken]\nurl = "{secure.url}"\noptions = {{ ca_file = "gone.pem" }}\n'
        )
        level, said = self.of(findings, "webhook own")
        self.assertIs(level, Level.WARNING)
        self.assertIn("can be reached", said)
        self.assertIn(f"The certificate of 127.0.0.1:{secure.port} ends on", said)
        self.assertIn("is not trusted", self.of(findings, "webhook strange")[1])
        self.assertIn("not verified", self.of(findings, "webhook blind")[1])
        self.assertIn("gone.pem cannot be read", self.of(findings, "webhook broken")[1])
        self.assertEqual(secure.requests, [])

    async def test_what_hangs_is_told(self) -> None:
        self.patch(visiting, "SECONDS", 0.1)
        self.gateway.script = lambda conversation, request: None
        level, said = self.of(await self.examine(), "cube hq")
        self.assertIs(level, Level.FAILED)
        self.assertIn("0.1 s went by", said)

    async def test_check_that_hangs_or_breaks(self) -> None:
        self.patch(examination, "CHECK_SECONDS", 0.05)
        outcome: list[Any] = [Deferred(), RuntimeError("oops")]

        async def hang(*_: object) -> Any:
            what = outcome.pop(0)
            if isinstance(what, Exception):
                raise what
            return await what

        self.patch(examination, "cube_findings", hang)
        for words in ("not over within 0.05 s", "could not be looked at: oops"):
            level, said = self.of(await self.examine(), "cube hq")
            self.assertIs(level, Level.FAILED)
            self.assertIn(words, said)

    async def test_gathering_that_breaks(self) -> None:
        def broken(*_: object) -> Any:
            raise RuntimeError("oops")

        self.patch(state, "kept", broken)
        findings = await self.examine()
        self.assertIn("could not be looked at: oops", " ".join(each.text for each in findings))
        self.assertIs(self.of(findings, "cube hq")[0], Level.OK)

    async def test_listener_over_tls(self) -> None:
        pem = self.folder / "own.pem"
        pem.write_bytes(Authority().pem("other.example"))
        gateway = Receiver(self, tls=Authority().server("127.0.0.1")).url
        path = self.folder / "cubehook.toml"
        path.write_text(
            f'[listen]\ncubes = ["ssl:{self.port}:interface=127.0.0.1:privateKey=own.pem"]\nconsole = []\n'
            f'[cubes.hq]\nprovider_url = "{gateway}"\n'
            f'application_url = "https://127.0.0.1:{self.port}/xcc"\n'
        )
        findings = await examine(reactor, Asked(config=path), time.time)
        said = self.of(findings, "listeners")[1]
        self.assertIn("own.pem ends on", said)
        self.assertIn("own.pem is not for 127.0.0.1, but for other.example", said)
        self.assertNotIn("privateKey", said)
        self.assertIn(f"`cubehook pin {gateway}`", self.of(findings, "cube hq")[1])

    async def test_one_cube(self) -> None:
        with self.assertRaises(NoCubeError) as caught:
            await self.examine(cube="nope")
        self.assertIn("there are hq", str(caught.exception))
        findings = await self.examine('[webhooks.crm]\nurl = "http://127.0.0.1/"\n', cube="hq")
        self.assertNotIn("webhook crm", [each.area for each in findings])

    async def test_router(self) -> None:
        text = f"uc wsapi\n provider xcc\n  no shutdown\n  remote-url http://127.0.0.1:{self.port}/xcc/hq/\n"
        level, said = self.of(await self.examine(router=text), "router")
        self.assertIs(level, Level.FAILED)
        self.assertIn("trailing slash", said)
