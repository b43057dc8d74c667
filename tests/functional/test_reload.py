"""The real service reads its configuration again while calls run."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from random import Random
from select import select
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from cubehook.simulator.gateway import SimulatedGateway
from cubehook.simulator.scenarios import Traffic, script
from cubehook.simulator.sink import Behaviour
from tests.functional.control import Answer
from tests.functional.harness import PATIENCE, Service, spawn
from tests.functional.test_cubes import CubesCase
from tests.functional.test_main_job import SECRET, STATES, reactor


class ReloadCase(CubesCase):
    reloads = 0

    async def reload(self) -> Answer:
        return await self.ask("POST", "/reload")

    async def hang_up(self) -> None:
        """SIGHUP, and wait until what came of it is said."""
        process = self.service.process
        assert process is not None
        said = len(process.text)
        process.send(signal.SIGHUP)
        await process.wait_for(r"was reloaded: |Not reloaded: ", said)

    def lab(self, gateway: SimulatedGateway, more: str = "") -> str:
        url = self.service.application_url("lab")
        return (
            f'[cubes.lab]\nprovider_url = "{self.provider_url(gateway)}"\napplication_url = "{url}"\n{more}\n'
        )

    def hook(self, name: str, more: str = "") -> str:
        return (
            f'[webhooks.{name}]\nurl = "http://127.0.0.1:{self.sink_port}/{name}"\npayload = "full"\n'
            f'secret = "{SECRET}"\n{more}\n'
        )

    def told_at(self, path: str) -> list[dict[str, Any]]:
        """Bodies of what a webhook's receiver took, first times only."""
        return [
            json.loads(each.body)
            for each in self.received
            if each.path == path and each.status == 200 and not each.repeat
        ]

    async def metric(self, line: str) -> None:
        """Wait until the metrics have this line."""

        async def found() -> bool:
            _, text = await self.service.get("/metrics")
            return line in text.splitlines()

        await self.poll(found)


class LoadTests(ReloadCase):
    CALLS = 90

    async def test_ten_times_under_load_nothing_is_lost(self) -> None:
        await self.begin(payload="full", webhook="concurrency = 4")
        service, hq = self.service, self.service.cubes
        lab = await self.another("lab")
        await lab.start()
        traffic = Traffic(mix={"answered": 100.0}, rate=30.0, count=self.CALLS, hold_seconds=2.0)
        calls = Deferred.fromCoroutine(self.gateway.make_calls(traffic))
        for turn in range(10):
            odd = turn % 2
            service.cubes = hq + f'description = "{turn}"\nallow_from = ["127.0.0.0/{8 + odd}"]\n'
            if odd:
                service.cubes += self.lab(lab)
            service.webhooks = self.hook("crm", f'concurrency = {turn + 1}\ndescription = "{turn}"')
            if odd:
                service.webhooks += self.hook("second", 'cubes = ["lab"]')
            service.extra = (
                f'[log]\nlevel = "{("info", "debug")[odd]}"\nformat = "{("text", "json")[odd]}"\n'
                f"keep = {turn + 1}\n[delivery]\ntimeout = {turn + 5}\n[retention]\ncalls = '{turn + 1}d'\n"
            )
            service.write_config()
            await self.hang_up()
        await calls
        await self.gateway.when_idle()
        await self.until(lambda: len(self.told_at("/crm")) >= 3 * self.CALLS)
        await self.metric('cubehook_reloads_total{result="changed"} 10.0')
        assert self.sink is not None
        summary = self.sink.summary()
        self.assertEqual((summary.bad_signatures, summary.malformed, summary.order_violations), (0, 0, 0))
        by_call: dict[str, list[str]] = {}
        for body in self.told_at("/crm"):
            by_call.setdefault(body["call_id"], []).append(body["call_state"])
        self.assertEqual(len(by_call), self.CALLS)
        self.assertEqual([states for states in by_call.values() if states != STATES], [])
        counters = self.gateway.counters
        self.assertEqual((counters.registrations, counters.failed, counters.lost_negative), (1, 0, 0))
        self.assertEqual(lab.counters.registrations, 5)


class CubeTests(ReloadCase):
    async def test_one_comes_changes_and_goes(self) -> None:
        await self.begin(payload="full")
        hq = self.service.cubes
        first = await self.another("lab")
        second = await self.another("lab")
        await first.start()
        self.service.cubes = hq + self.lab(first)
        self.service.write_config()
        answer = await self.reload()
        self.assertEqual(answer.body["cubes"], {"added": ["lab"], "changed": [], "removed": []})
        await first.when_registered().addTimeout(PATIENCE, reactor)
        found = await self.ask("GET", "/cubes/lab")
        self.assertTrue(found.body["provisioned"])

        # It moves to another gateway, with a call in progress.
        first.place_call(script("answered", Random(5), 10_000.0))
        await self.until(lambda: self.told("lab") == ["ALERTING", "CONNECTED"])
        self.service.cubes = hq + self.lab(second)
        self.service.write_config()
        answer = await self.reload()
        self.assertEqual(answer.body["cubes"]["changed"], ["lab"])
        await second.start()
        await second.when_registered().addTimeout(PATIENCE, reactor)
        self.assertIsNone(first.registration)
        found = await self.ask("GET", "/cubes/lab")
        self.assertEqual(found.body["calls_active"], 1)

        # What is no more is unregistered, its calls are closed, and its history stays.
        self.service.cubes = hq
        self.service.write_config()
        answer = await self.reload()
        self.assertEqual(answer.body["cubes"]["removed"], ["lab"])
        self.assertIsNone(second.registration)
        await self.until(lambda: self.told("lab") == STATES)
        self.assertEqual((await self.ask("GET", "/cubes/lab")).status, 404)
        self.assertEqual(len((await self.ask("GET", "/calls?cube=lab")).body["items"]), 1)
        self.assertEqual((self.gateway.counters.registrations, self.gateway.counters.failed), (1, 0))

        # The record has who did that; at the next start it is as it is now.
        entries = (await self.ask("GET", "/audit?action=reload")).body["items"]
        self.assertEqual(
            [entry["detail"] for entry in entries],
            [{"cubes": {what: ["lab"]}} for what in ("removed", "changed", "added")],
        )
        self.assertEqual({entry["who"] for entry in entries}, {f"uid {os.getuid()}"})
        await self.service.process.stop()  # type: ignore[union-attr]
        await self.service.start()
        self.assertEqual([each["id"] for each in (await self.ask("GET", "/cubes")).body["items"]], ["hq"])

    async def test_the_file_takes_over_what_was_made_elsewhere(self) -> None:
        await self.begin(payload="full")
        gateway, _ = await self.add_branch(description="by hand")
        hq = self.service.cubes
        url = self.service.application_url("branch")
        taken = f'[cubes.other]\nprovider_url = "http://127.0.0.1:1/"\napplication_url = "{url}"\n'
        self.service.cubes = hq + taken
        self.service.write_config()
        answer = await self.reload()
        self.assertEqual(answer.status, 422)
        self.assertIn("that of cubes.branch", answer.body["error"]["fields"]["cubes.other.application_url"])
        self.assertEqual((await self.ask("GET", "/cubes/other")).status, 404)

        self.service.cubes = hq + taken.replace("cubes.other", "cubes.branch").replace(
            "http://127.0.0.1:1/", self.provider_url(gateway)
        )
        self.service.write_config()
        self.assertEqual((await self.reload()).body["cubes"]["added"], ["branch"])
        found = await self.ask("GET", "/cubes/branch")
        self.assertEqual((found.body["provisioned"], found.body["description"]), (True, ""))
        self.assertEqual(gateway.counters.registrations, 1)
        self.assertEqual((await self.ask("DELETE", "/cubes/branch")).status, 409)
        self.service.cubes = hq
        self.service.write_config()
        self.assertEqual((await self.reload()).body["cubes"]["removed"], ["branch"])
        self.assertIsNone(gateway.registration)


class WebhookTests(ReloadCase):
    async def test_one_comes_changes_and_goes(self) -> None:
        await self.begin(payload="full")
        crm = self.service.webhooks
        self.call()
        await self.until(lambda: len(self.told_at("/crm")) == 3)
        await self.stop_sink()
        self.service.webhooks = crm + self.hook("second", "retry = [3600]\ndisable_after = 'never'")
        self.service.write_config()
        answer = await self.reload()
        self.assertEqual(answer.body["webhooks"]["added"], ["second"])
        self.call()
        await self.metric('cubehook_deliveries_pending{webhook="second"} 3.0')
        await self.metric('cubehook_deliveries_total{outcome="retried",webhook="second"} 1.0')

        # Changed in place it keeps its queue, and what waited an hour still does.
        self.service.webhooks = crm + self.hook("second", "retry = [3600]\ntimeout = 3\njitter = 0")
        self.service.write_config()
        self.assertEqual((await self.reload()).body["webhooks"]["changed"], ["second"])
        await self.metric('cubehook_deliveries_pending{webhook="second"} 3.0')
        await self.start_sink(Behaviour())
        await self.until(lambda: len(self.told_at("/crm")) == 6)
        self.assertEqual(self.told_at("/second"), [])

        # Without it in the file, what is pending for it fails.
        self.service.webhooks = crm
        self.service.write_config()
        self.assertEqual((await self.reload()).body["webhooks"]["removed"], ["second"])
        _, metrics = await self.service.get("/metrics")
        self.assertNotIn('"second"', metrics)

        async def failed() -> bool:
            found = await self.ask("GET", "/deliveries?webhook=second&status=failed")
            return len(found.body["items"]) == 3

        await self.poll(failed)
        self.call()
        await self.until(lambda: len(self.told_at("/crm")) == 9)
        self.assertEqual(self.told_at("/second"), [])

    async def test_defaults_hold_for_those_without_a_value_of_their_own(self) -> None:
        await self.begin(payload="full")
        await self.stop_sink()
        self.service.extra = "[delivery]\nretry = []\n"
        self.service.write_config()
        await self.hang_up()
        self.call()
        # Without the reload the first failure would be one of many.
        await self.metric('cubehook_deliveries_total{outcome="failed",webhook="crm"} 3.0')
        await self.start_sink(Behaviour())
        text = self.service.config.read_text()
        self.service.config.write_text(text.replace('allow = ["127.0.0.0/8"]', ""))
        await self.hang_up()
        self.call()

        async def blocked() -> Any:
            found = await self.ask("GET", "/deliveries?status=failed&limit=1")
            attempts = (await self.ask("GET", f"/deliveries/{found.body['items'][0]['id']}")).body["attempts"]
            return attempts and attempts[0]["error_class"] == "blocked"

        await self.poll(blocked)
        self.assertEqual(self.received, [])


class RefusalTests(ReloadCase):
    async def test_a_bad_file_changes_nothing_and_says_everything(self) -> None:
        await self.begin(payload="full")
        good = self.service.config.read_text()
        bad = good.replace('payload = "full"', 'payload = "most"').replace("[egress]", "[egres]")
        self.service.config.write_text(f'{bad}\n[cubes.lab]\nprovider_url = "http://127.0.0.1:1/x"\n')
        process = self.service.process
        assert process is not None
        process.send(signal.SIGHUP)
        expected = {
            "egres": "expected a known key, perhaps egress; found an unknown one",
            "cubes.lab.application_url": "expected an http or https URL with a host; found nothing",
            "webhooks.crm.payload": 'expected one of "basic", "full", "template"; found "most"',
        }
        await process.wait_for(r"Not reloaded: \S+cubehook.toml has 3 errors; nothing was changed")
        await process.wait_for("Not reloaded: webhooks")
        for key, words in expected.items():
            self.assertIn(f"Not reloaded: {key}: {words}", process.text)
        answer = await self.reload()
        self.assertEqual(answer.status, 422)
        self.assertEqual(answer.body["error"]["fields"], expected)
        await self.metric("cubehook_config_last_reload_successful 0.0")

        # Neither does a port that somebody else has.
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            console = f'console = ["tcp:{self.service.console_port}'
            lab = '[cubes.lab]\nprovider_url = "http://127.0.0.1:1/x"\napplication_url = "http://a/lab"\n'
            self.service.config.write_text(good.replace(console, f'console = ["tcp:{port}') + lab)
            answer = await self.reload()
            self.assertEqual(answer.status, 422)
            self.assertIn("in use", answer.body["error"]["fields"]["listen.console"])
        self.assertEqual((await self.ask("GET", "/cubes/lab")).status, 404)
        self.call()
        await self.until(lambda: len(self.told_at("/crm")) == 3)

        # What needs a restart is said, the rest holds; the log is written to a new file.
        log = self.service.folder / "state" / "log" / "cubehook.log"
        log.rename(log.with_suffix(".moved"))
        wanted = good.replace('state_dir = "state"', 'state_dir = "other"\n[log]\nlevel = "warn"')
        self.service.config.write_text(wanted)
        await self.hang_up()
        await process.wait_for("takes effect only at a restart: state_dir")

        async def written() -> bool:
            return log.exists() and "takes effect only at a restart: state_dir" in log.read_text()

        await self.poll(written)
        self.assertNotIn("was reloaded", log.read_text())
        await self.metric("cubehook_config_last_reload_successful 1.0")
        self.assertFalse((self.service.folder / "other").exists())


class SignalTests(ReloadCase):
    """Without a gateway, as nothing is to be told."""

    def setUp(self) -> None:
        super().setUp()
        self.service = Service(self, Path(self.mktemp()))
        self.service.write_config()

    async def test_before_it_is_ready_many_and_while_it_stops(self) -> None:
        starting = Deferred.fromCoroutine(self.service.start())
        process = self.service.process
        assert process is not None
        await process.wait_for("Listening on")
        process.send(signal.SIGHUP)
        await starting
        await process.wait_for("was reloaded: nothing has changed")
        self.assertGreater(process.text.index("was reloaded"), process.text.index("is running; cubes"))
        self.assertEqual(process.text.count("was reloaded"), 1)
        for _ in range(20):
            process.send(signal.SIGHUP)
        await self.hang_up()
        self.assertNotIn("Not reloaded", process.text)
        process.send(signal.SIGHUP)
        process.send(signal.SIGTERM)
        process.send(signal.SIGHUP)
        await process.ended()
        self.assertEqual(process.signal, signal.SIGTERM)
        self.assertIn("cubehook has stopped", process.text)
        self.assertNotIn("Traceback", process.text)

    async def test_in_the_background_and_without_its_terminal(self) -> None:
        pidfile, logfile = self.service.folder / "pid", self.service.folder / "out.log"
        run = "from twisted.scripts.twistd import run; run()"
        where = [f"--pidfile={pidfile}", f"--logfile={logfile}", "cubehook", "--config"]
        started = spawn(self, "-c", run, *where, str(self.service.config), env=self.service.env)
        await started.ended()
        self.assertEqual(started.exit_code, 0, started.text)
        pid = int(pidfile.read_text())
        try:

            async def said(words: str) -> None:
                async def found() -> bool:
                    return logfile.exists() and words in logfile.read_text()

                await self.poll(found)

            await said("is running")
            os.kill(pid, signal.SIGHUP)
            await said("was reloaded: nothing has changed")
        finally:
            os.kill(pid, signal.SIGTERM)
            await said("cubehook has stopped")

            async def gone() -> bool:
                return not pidfile.exists()

            await self.poll(gone)
        # A terminal that is closed still ends what it was started from.
        said_there = await deferToThread(_in_a_terminal_that_closes, self.service.config, self.service.folder)
        self.assertIn("The terminal is gone from which cubehook was started, so it stops", said_there)
        self.assertIn("cubehook has stopped", said_there)


def _in_a_terminal_that_closes(config: Path, folder: Path) -> str:
    """What the service's log has after it was started in a terminal, and that was closed."""
    import pty

    log = folder / "state" / "log" / "cubehook.log"
    before = len(log.read_text())
    run = "from twisted.scripts.twistd import run; run()"
    arguments = [sys.executable, "-c", run, "-n", f"--pidfile={folder / 'pty.pid'}", "cubehook"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        os.execv(sys.executable, [*arguments, "--config", str(config)])
    shown = b""
    while b"is running" not in shown and select([terminal], [], [], PATIENCE)[0]:
        shown += os.read(terminal, 65536)
    os.close(terminal)
    os.waitpid(pid, 0)
    return log.read_text()[before:]
