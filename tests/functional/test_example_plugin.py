"""
A transport in a package of its own, installed beside cubehook: found, listed, checked, and events come out.

The package is `examples/cubehook-syslog`, built and installed as its users would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import script
from tests.functional.harness import PATIENCE, Process, Service, free_port
from tests.functional.installed import (
    EXAMPLE,
    ROOT,
    TWISTD,
    Environment,
    cubehook_wheel,
    example_wheel,
    run,
    sources,
)

reactor: Any = installed

MESSAGE = re.compile(
    rb"<158>1 \S+Z pbx cubehook [0-9]+ (?P<id>[A-Z]+) "
    rb'\[call@32473 event="(?P<event>[\w-]+)" cube="hq" call="(?P<call>\w+)" sequence="(?P<sequence>[0-9])" '
    rb'attempt="(?P<attempt>[0-9]+)"\] \xef\xbb\xbf(?P<text>\{.*\})'
)
WEBHOOK = """
[webhooks.logs]
transport = "syslog"
url = "syslog://127.0.0.1:{port}"
options = {{ facility = "local3", hostname = "pbx" }}
"""


@cache
def environment() -> Environment:
    return Environment("with-example", cubehook_wheel(), example_wheel())


class InstalledTests(SynchronousTestCase):
    def test_its_wheel_adds_one_file_to_cubehooks(self) -> None:
        with zipfile.ZipFile(example_wheel()) as wheel:
            packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        self.assertEqual(
            packed,
            {
                "cubehook/plugins/cubehook_syslog.py",
                "cubehook_syslog/__init__.py",
                "cubehook_syslog/message.py",
                "cubehook_syslog/transport.py",
            },
        )

    def test_it_is_listed_with_its_options(self) -> None:
        command, elsewhere = environment().command, environment().elsewhere
        text = run(command, "transports", cwd=elsewhere)
        self.assertRegex(text, "(?m)^http: ")
        self.assertRegex(text, "(?m)^syslog: A syslog message for each event")
        self.assertRegex(text, r'(?m)^      facility: one of .*"local7", .*, by default "local0"\n {10}\w')
        self.assertRegex(text, r"(?m)^      max_bytes: a whole number from 480 to 65507, by default 2048\n")
        listed = {
            each["name"]: each for each in json.loads(run(command, "transports", "--json", cwd=elsewhere))
        }
        [schema] = listed["syslog"]["options"]["$defs"].values()
        self.assertEqual(schema["properties"]["max_bytes"]["maximum"], 65507)

    def test_a_configuration_is_checked_by_it(self) -> None:
        file = environment().elsewhere / "bad.toml"
        file.write_text(
            '[webhooks.logs]\ntransport = "syslog"\nurl = "syslog://logs/x"\n'
            '[webhooks.more]\ntransport = "syslog"\nurl = "syslog://logs"\n'
            'options = { facility = "local9", colour = 1 }\n'
        )
        with self.assertRaises(AssertionError) as caught:
            run(environment().command, "check", "bad.toml", cwd=environment().elsewhere)
        told = str(caught.exception)
        self.assertIn("webhooks.logs.url: expected the collector, such as syslog://", told)
        self.assertIn('webhooks.more.options.facility: expected one of "alert"', told)
        self.assertIn("webhooks.more.options.colour: expected one of the options of syslog: facility", told)

    def test_its_own_tests_pass(self) -> None:
        """They put it to the promises of `cubehook.testing`."""
        said = run(
            *(environment().python, "-m", "twisted.trial"),
            *("--temp-directory", str(environment().elsewhere / "trial"), "tests"),
            cwd=sources() / EXAMPLE.relative_to(ROOT),
        )
        self.assertRegex(said, r"(?m)^PASSED \(.*successes=[1-9]")

    def test_it_is_found_where_nothing_can_be_written(self) -> None:
        """As when root installs and another user runs it."""
        folder = environment().site_packages / "cubehook" / "plugins"
        before = {path.name for path in folder.iterdir()}
        mode = stat.S_IMODE(folder.stat().st_mode)
        folder.chmod(0o555)
        self.addCleanup(folder.chmod, mode)
        said = run(environment().command, "transports", cwd=environment().elsewhere)
        self.assertRegex(said, "(?m)^syslog: ")
        self.assertEqual({path.name for path in folder.iterdir()}, before)

    def test_removed_it_is_gone_and_cubehook_stays(self) -> None:
        mortal = Environment("mortal", cubehook_wheel(), example_wheel())
        mortal.pip("uninstall", "--yes", "cubehook-syslog")
        said = run(mortal.command, "transports", cwd=mortal.elsewhere)
        self.assertRegex(said, "(?m)^http: ")
        self.assertNotIn("syslog", said)

    def test_an_editable_install_is_found_too(self) -> None:
        source = sources() / EXAMPLE.relative_to(ROOT)
        apart = Environment("apart", cubehook_wheel())
        apart.pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", str(source))
        self.assertFalse((apart.site_packages / "cubehook" / "plugins" / "cubehook_syslog.py").exists())
        self.assertRegex(run(apart.command, "transports", cwd=apart.elsewhere), "(?m)^syslog: ")


class Collector(DatagramProtocol):
    """Takes datagrams on a free port of loopback."""

    def __init__(self, test: TestCase) -> None:
        self.datagrams: list[bytes] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []
        port: Any = reactor.listenUDP(0, self, interface="127.0.0.1")
        self.port: int = port.getHost().port
        test.addCleanup(port.stopListening)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.datagrams.append(datagram)
        for entry in list(self._waiting):
            if len(self.datagrams) >= entry[0]:
                self._waiting.remove(entry)
                entry[1].callback(None)

    async def wait(self, count: int) -> list[bytes]:
        if len(self.datagrams) < count:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((count, waiting))
            await waiting.addTimeout(PATIENCE, reactor)
        return self.datagrams


class InstalledService(Service):
    """The service as it is installed: nothing of the checkout is in its way."""

    async def start(self) -> Process:
        self.write_config()
        process = self.process = Process()
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        python = environment().python
        reactor.spawnProcess(
            process,
            python,
            [
                python,
                "-c",
                TWISTD,
                "-n",
                f"--pidfile={self.folder / 'pid'}",
                "cubehook",
                f"--config={self.config}",
            ],
            env={**environ, "PYTHONUNBUFFERED": "1"},
            path=str(environment().elsewhere),
        )
        self.test.addCleanup(lambda: Deferred.fromCoroutine(process.kill()))
        await process.wait_for(r"cubehook \S+ is running")
        return process


class ServiceTests(TestCase):
    timeout = 120

    async def test_the_events_of_a_call_come_out_as_messages(self) -> None:
        collector = Collector(self)
        gateway_port = free_port()
        service = InstalledService(
            self,
            Path(self.mktemp()),
            webhooks=WEBHOOK.format(port=collector.port)
            + f'[webhooks.nowhere]\ntransport = "syslog"\nurl = "syslog://169.254.169.254:{collector.port}"\n',
        )
        url = service.application_url("hq")
        service.cubes = (
            f'[cubes.hq]\nprovider_url = "http://127.0.0.1:{gateway_port}/cisco_xcc"\n'
            f'application_url = "{url}"\n'
        )
        gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url=url,
                listen=f"tcp:{gateway_port}:interface=127.0.0.1",
                speed=20.0,
                probing=Probing(response_timeout=5.0, negative=1.0),
            ),
            Random(1),
        )
        self.addCleanup(gateway.stop)
        await gateway.start()
        process = await service.start()
        await gateway.when_registered().addTimeout(PATIENCE, reactor)
        made = script("answered", Random(1), 2.0)
        gateway.place_call(made)

        datagrams = await collector.wait(3)
        messages = []
        for datagram in datagrams:
            message = MESSAGE.fullmatch(datagram)
            self.assertIsNotNone(message, datagram)
            assert message is not None
            messages.append(message)
        self.assertEqual(
            [message["id"] for message in messages], [b"ALERTING", b"CONNECTED", b"DISCONNECTED"]
        )
        self.assertEqual([message["sequence"] for message in messages], [b"1", b"2", b"3"])
        self.assertEqual(len({message["call"] for message in messages}), 1)
        self.assertEqual(len({message["event"] for message in messages}), 3)
        for message in messages:
            body = json.loads(message["text"])
            self.assertEqual(body["call_state"], message["id"].decode())
            self.assertEqual(body["called_number"].lstrip("+"), made.called.lstrip("+"))

        await process.stop(signal.SIGTERM)
        log = (service.folder / "state" / "log" / "events.log").read_text()
        for message in messages:
            self.assertIn(f"attempt {message['event'].decode()} -> logs #1 delivered ", log)
        # The policy holds for datagrams too.
        self.assertRegex(
            log, r"-> nowhere #1 not delivered .* blocked: .* link-local addresses are always denied"
        )
        self.assertNotIn("Traceback", process.text)
        where = run(
            environment().python,
            "-c",
            "import cubehook; print(cubehook.__file__)",
            cwd=environment().elsewhere,
        )
        self.assertTrue(where.startswith(str(environment().site_packages)))
        self.assertNotEqual(environment().python, sys.executable)
