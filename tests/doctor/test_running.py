"""The examination of a service that runs, as it tells of itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor as installed
from twisted.trial.unittest import TestCase

from cubehook import __version__
from cubehook.config import Cube
from cubehook.control import ControlError
from cubehook.doctor import examination, ports
from cubehook.doctor.examination import Asked, examine
from cubehook.doctor.findings import Finding, Level
from cubehook.doctor.visiting import question
from tests.functional.harness import free_port
from tests.transports.support import Receiver, answering

reactor: Any = installed

REGISTRATION: dict[str, Any] = {
    "state": "registered",
    "registration_id": "4CA5E4:XCC:cubehook:4",
    "since": "2024-11-23T16:00:00.000000Z",
    "last_message_at": "2024-11-23T16:03:36.200940Z",
    "last_probe_at": None,
    "failure_count": 0,
    "last_error": None,
    "reason": "",
}
WEBHOOK: dict[str, Any] = {
    "id": "crm",
    "state": "closed",
    "held_until": None,
    "failures": 0,
    "failing_since": None,
    "disabled_reason": None,
    "problem": None,
    "pending": 0,
    "counters": {"delivered": 3},
}


class FakeControl:
    """A service that tells what it is told to tell."""

    def __init__(self, cubes: list[dict[str, Any]], webhooks: list[dict[str, Any]]) -> None:
        self.status = {"version": __version__, "started_at": "2024-11-23T16:00:00.000000Z", "problems": []}
        self.cubes, self.webhooks = cubes, webhooks
        self.knock: dict[str, Any] = {"arrived": True, "cubes": ["hq"]}

    def get(self, path: str) -> Any:
        name = path.partition("?")[0]
        if name == "/status":
            return self.status
        if name.startswith("/knocks/"):
            return {"nonce": "abc", "header": "Knock", **self.knock}
        return {"items": {"/cubes": self.cubes, "/webhooks": self.webhooks}[name], "next": None}

    def post(self, path: str) -> Any:
        return {"nonce": "abc", "header": "Knock", "arrived": False, "cubes": []}


class Examinations(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "state").mkdir(parents=True, mode=0o750)
        self.gateway = Receiver(self)
        self.listener = Receiver(self, answering(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n"))
        self.console = Receiver(self, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"))
        self.receiver = Receiver(self)
        self.cube = Cube(
            id="hq",
            provider_url=f"http://127.0.0.1:{self.gateway.port}/cisco_xcc",
            application_url=f"http://127.0.0.1:{self.listener.port}/xcc/hq",
        )
        self.service = FakeControl([self.view(self.cube)], [{**WEBHOOK}])
        self.patch(examination, "Control", lambda folder, timeout: self.service)

    def view(self, cube: Cube, **registration: Any) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(cube)
        more = {"provisioned": True, "registration": {**REGISTRATION, **registration}}
        return {**shown, **more, "calls_active": 0, "counters": {}}

    async def examine(self) -> list[Finding]:
        path = self.folder / "cubehook.toml"
        path.write_text(
            f'state_dir = "state"\n[listen]\ncubes = ["tcp:{self.listener.port}:interface=127.0.0.1"]\n'
            f'console = ["tcp:{self.console.port}:interface=127.0.0.1"]\n[egress]\nallow = ["127.0.0.0/8"]\n'
            f'[cubes.hq]\nprovider_url = "{self.cube.provider_url}"\n'
            f'application_url = "{self.cube.application_url}"\n'
            f'[webhooks.crm]\nurl = "{self.receiver.url}"\n'
        )
        return await examine(reactor, Asked(config=path), time.time)

    async def said(self, area: str, level: Level) -> str:
        """What was found of an area, on one level."""
        findings = await self.examine()
        return "\n".join(
            "\n".join((each.text, *each.advice))
            for each in findings
            if each.area == area and each.level is level
        )

    async def test_well(self) -> None:
        findings = await self.examine()
        levels = {each.area: each.level for each in findings}
        del levels["database"], levels["clock"]
        self.assertEqual(set(levels.values()), {Level.OK}, findings)
        asked = [each.line for each in self.listener.requests]
        self.assertEqual(sorted(asked), ["GET / HTTP/1.1", "GET /xcc/hq HTTP/1.1"])
        self.assertEqual({each.headers["knock"] for each in self.listener.requests}, {"abc"})
        self.assertEqual([each.line for each in self.console.requests], ["GET /healthz HTTP/1.1"])

    async def test_registration(self) -> None:
        self.service.cubes = [
            self.view(self.cube, state="silent", reason="It probes no more.", last_error="Nothing came.")
        ]
        said = await self.said("cube hq", Level.FAILED)
        self.assertIn("It is silent since", said)
        self.assertIn("It probes no more. Nothing came", said)
        self.assertIn("it must reach", said)
        self.assertIn("--router-config", await self.said("router", Level.SKIPPED))

    async def test_application_url_of_another_program(self) -> None:
        self.service.knock["arrived"] = False
        said = await self.said("cube hq", Level.FAILED)
        self.assertIn("does not lead here: another program answers there", said)
        self.assertIn(f"Port {self.listener.port} is held by ", said)
        said = await self.said("listeners", Level.FAILED)
        self.assertIn("answers there with HTTP status 405, not this service", said)

    async def test_path_that_is_changed_on_the_way(self) -> None:
        self.service.knock["cubes"] = []
        self.assertIn("Something on the way changes the path", await self.said("cube hq", Level.FAILED))

    async def test_application_url_where_nobody_listens(self) -> None:
        self.cube = msgspec.structs.replace(self.cube, application_url=f"http://127.0.0.1:{free_port()}/xcc")
        self.service.cubes = [self.view(self.cube)]
        said = await self.said("cube hq", Level.FAILED)
        self.assertIn("refused the connection", said)
        self.assertIn(f"listen.cubes has {self.listener.port}", said)
        # Behind NAT that can be as it should.
        self.patch(ports, "is_here", lambda address: False)
        self.assertIn("Behind NAT", await self.said("cube hq", Level.WARNING))

    async def test_console_of_another_program(self) -> None:
        self.console.script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")
        self.assertIn("not this service", await self.said("listeners", Level.FAILED))

    async def test_webhooks(self) -> None:
        for changes, level, words in (
            ({"disabled_reason": "410 Gone"}, Level.FAILED, "cubehook enable crm"),
            ({"problem": "it has no file"}, Level.FAILED, "It is sent nothing: it has no file"),
            ({"state": "open", "pending": 1200}, Level.FAILED, "(open); 1,200 deliveries are pending"),
            ({"failures": 2}, Level.WARNING, "The last 2 attempts failed"),
            ({"counters": {}}, Level.OK, "Nothing was sent yet"),
        ):
            self.service.webhooks = [{**WEBHOOK, **changes}]
            self.assertIn(words, await self.said("webhook crm", level))

    async def test_service_of_another_version(self) -> None:
        self.service.status |= {"version": "9.9", "problems": ["the disk is full"]}
        self.assertIn("cubehook 9.9 runs, and this is", await self.said("service", Level.WARNING))
        self.assertIn("It is not ready: the disk is full", await self.said("service", Level.FAILED))

    async def test_file_that_was_changed(self) -> None:
        other = msgspec.structs.replace(self.cube, description="as it was")
        gone = msgspec.structs.replace(self.cube, id="gone", enabled=False)
        self.service.cubes = [self.view(other), self.view(gone)]
        self.service.webhooks = []
        said = await self.said("configuration", Level.WARNING)
        self.assertIn("cubes.hq, cubes.gone, webhooks.crm", said)
        self.assertIn("cubehook reload", said)

    async def test_service_that_says_nothing(self) -> None:
        def silent(path: str) -> Any:
            raise ControlError("it did not answer")

        self.service.get = silent  # type: ignore[method-assign]
        self.assertIn("cannot be asked: it did not answer", await self.said("service", Level.FAILED))
        self.assertIn("is taken by", await self.said("listeners", Level.FAILED))


class Questions(TestCase):
    def test_url_as_it_is_asked(self) -> None:
        asked = question("http://a.example:80/b//c?d=e", {"X": "y"}).split(b"\r\n")
        self.assertEqual(asked[:2], [b"GET /b//c?d=e HTTP/1.1", b"Host: a.example:80"])
        self.assertIn(b"X: y", asked)
