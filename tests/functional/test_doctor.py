"""`cubehook doctor` beside the real service and a simulated gateway, and without them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.simulator.gateway import Settings, SimulatedGateway
from tests.functional.harness import PATIENCE, Service, free_port, spawn
from tests.functional.test_commands import RUN, cubehook
from tests.functional.test_main_job import SECRET, MainJobCase, reactor
from tests.transports.support import Receiver


class DoctorTests(MainJobCase):
    async def doctor(self, *arguments: str, status: int) -> dict[str, list[dict[str, Any]]]:
        """What is found of each area."""
        config = str(self.service.config)
        found, output, errors = await cubehook("doctor", "--json", "--config", config, *arguments)
        self.assertEqual((found, errors), (status, ""), output)
        areas: dict[str, list[dict[str, Any]]] = {}
        for finding in json.loads(output)["findings"]:
            areas.setdefault(finding["area"], []).append(finding)
        self.assertNotIn(SECRET, output)
        return areas

    def wrong(self, areas: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
        """What is wrong, by area."""
        return {
            area: "\n".join(each["text"] for each in found if each["level"] == "failed")
            for area, found in areas.items()
            if any(each["level"] == "failed" for each in found)
        }

    async def test_all_is_well(self) -> None:
        await self.begin()
        self.call()
        await self.until(lambda: len(self.received) == 3)
        registered = self.gateway.counters.registrations
        areas = await self.doctor(status=0)
        self.assertEqual(
            list(areas),
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
        said = "\n".join(each["text"] for found in areas.values() for each in found)
        url = self.service.application_url("hq")
        for words in (
            "It is registered, as ",
            f"application_url {url} leads here, in",
            f"The gateway 127.0.0.1:{self.gateway_port} takes connections",
            f"Its receiver 127.0.0.1:{self.sink_port} can be reached",
            "Its deliveries arrive",
            "secret.key opens what the webhooks keep secret",
        ):
            self.assertIn(words, said)
        self.assertEqual(said.count("this service answers there"), 2)
        # Nobody was disturbed: the receiver got nothing, the gateway was not registered with again.
        self.assertEqual(len(self.received), 3)
        self.assertEqual(self.gateway.counters.registrations, registered)
        _, metrics = await self.service.get("/metrics")
        self.assertNotIn('cubehook_rejected_total{reason="method"} 1', metrics)

        # What the router shows is all that is wrong then.
        path = Path(self.mktemp()).absolute()
        path.write_text(
            "r1#show running-config | section wsapi\r\nuc wsapi\r\n message-exchange max-failures 2\r\n"
            f" source-address 127.0.0.1\r\n provider xcc\r\n --More-- \b\b\b\b  remote-url {url}/\r\nr1#\r\n"
        )
        areas = await self.doctor("--cube", "hq", "--router-config", str(path), status=1)
        self.assertEqual(list(self.wrong(areas)), ["router"])
        (found,) = [each for each in areas["router"] if each["level"] == "failed"]
        self.assertIn("trailing slash", found["text"])
        self.assertEqual(found["lines"], ["uc wsapi", " provider xcc", f"  remote-url {url}"])

    async def test_trouble(self) -> None:
        await self.begin(webhook="breaker = { failures = 1 }")
        process = self.service.process
        assert process is not None
        # The receiver dies, and the gateway, and a file that was changed waits for a start.
        await self.stop_sink()
        self.call()
        await process.wait_for("Webhook crm is held back")
        await self.gateway.stop()
        self.service.cubes = self.service.cubes.replace("/xcc/hq", "/xcc/other")
        self.service.write_config()
        areas = await self.doctor(status=1)
        wrong = self.wrong(areas)
        self.assertIn("It is held back", wrong["webhook crm"])
        self.assertIn("refused the connection", wrong["webhook crm"])
        self.assertIn(f"127.0.0.1:{self.gateway_port} cannot be reached", wrong["cube hq"])
        self.assertIn("cubes.hq", "".join(each["text"] for each in areas["configuration"]))
        # A service that was killed is not taken for one that runs.
        await process.kill()
        areas = await self.doctor(status=1)
        self.assertEqual(areas["service"][0]["level"], "skipped")
        self.assertEqual({each["level"] for each in areas["database"]}, {"ok"})

    async def test_port_of_another_program(self) -> None:
        await self.begin()
        assert self.service.process is not None
        other = Service(self, Path(self.mktemp()))
        other.listen = other.listen.replace(str(other.cubes_port), str(self.sink_port))
        other.write_config()
        self.service, running = other, self.service
        wrong = self.wrong(await self.doctor(status=1))
        self.assertIn(f"port {self.sink_port} is taken by ", wrong["listeners"])
        self.assertIn("(process ", wrong["listeners"])
        # So it is told when the service that runs is not the one that answers.
        self.service = running
        running.listen = running.listen.replace(str(running.cubes_port), str(self.sink_port))
        running.write_config()
        wrong = self.wrong(await self.doctor(status=1))
        self.assertIn("answers there", wrong["listeners"])
        self.assertIn("not this service", wrong["listeners"])

    async def test_other_path_on_the_router(self) -> None:
        port = free_port()
        gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url="http://127.0.0.1:8090/xcc/hq/",
                listen=f"tcp:{port}:interface=127.0.0.1",
                speed=20.0,
            ),
            Random(1),
        )
        await gateway.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(gateway.stop()))
        self.service = Service(self, Path(self.mktemp()))
        url = self.service.application_url("hq")
        self.service.cubes = (
            f'[cubes.hq]\nprovider_url = "http://127.0.0.1:{port}/cisco_xcc"\napplication_url = "{url}"\n'
        )
        process = await self.service.start()
        await process.wait_for("refused")
        areas = await self.doctor(status=1)
        (found,) = [each for each in areas["cube hq"] if each["level"] == "failed"]
        self.assertIn("It is rejected", found["text"])
        self.assertIn(f"must be `{url}` to the letter", "\n".join(found["advice"]))
        self.assertIn("--router-config", "".join(areas["router"][0]["advice"]))


class Interrupting(TestCase):
    async def test_ctrl_c(self) -> None:
        silent = Receiver(self, lambda conversation, request: None)
        path = Path(self.mktemp()).absolute()
        path.write_text(
            f'[cubes.hq]\nprovider_url = "http://127.0.0.1:{silent.port}/cisco_xcc"\n'
            'application_url = "http://127.0.0.1:8090/xcc"\n'
        )
        process = spawn(self, "-c", RUN, "doctor", "--config", str(path))
        await silent.next_request().addTimeout(PATIENCE, reactor)
        process.send(signal.SIGINT)
        await process.ended()
        self.assertEqual((process.exit_code, process.text), (130, ""))
