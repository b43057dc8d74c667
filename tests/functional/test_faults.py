"""
What can go wrong with the machine under the service, done to it while calls happen.

Whatever it is: gateways are answered in time, webhooks get their events, everybody who looks is told, and
once it is over everything is in the database.  The long ones are in `tests.proof.test_faults`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as installed
from twisted.web.client import ResponseNeverReceived

from cubehook.simulator.gateway import Notification, Observer, Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from tests.functional import odd
from tests.functional.control import ask
from tests.functional.harness import free_port
from tests.functional.test_main_job import STATES
from tests.functional.test_metrics import MetricsCase

reactor: Any = installed

ANSWER_SECONDS = 2.0
"""How long a gateway may wait for its answer, and what a busy machine may add to that."""
SLACK = 3.0

EVENTS = "SELECT body FROM events WHERE granularity <> 'notice'"


class Stopwatch(Observer):
    """How long the gateway waited for each answer, and what went wrong."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.wrong: list[str] = []

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        self.waits.append(at - notification.sent_at)
        if status != 200:
            self.wrong.append(f"{status} {error}")


class FaultCase(MetricsCase):
    """A gateway with a stopwatch."""

    connections = 8

    async def begin_watched(self, webhook: str = "") -> None:
        await self.begin(payload="full", webhook=f"retry = {[1] * 60}\n{webhook}")
        await self.gateway.stop()
        self.watch = Stopwatch()
        settings = Settings(
            remote_url=self.service.application_url("hq"),
            listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
            speed=20.0,
            connections=self.connections,
            probing=Probing(response_timeout=5.0, keepalive=2.0, negative=1.0),
        )
        self.gateway = SimulatedGateway(reactor, settings, Random(1), [self.watch])
        await self.gateway.start()
        await self.gateway.when_registered()

    @property
    def pid(self) -> int:
        assert self.service.process is not None
        pid = self.service.process.transport.pid  # type: ignore[union-attr]
        assert pid is not None
        return int(pid)

    @property
    def said(self) -> str:
        assert self.service.process is not None
        return self.service.process.text

    async def answered_calls(self, count: int) -> None:
        """Calls that are answered and end, one after the other begun; returns when all were told of."""
        calls = self.gateway.counters.calls
        for _ in range(count):
            self.call(hold=1.0)
        await self.until(lambda: len(self.events()) >= 3 * (calls + count))

    def events(self) -> set[str]:
        """The ids of the events that the receiver took."""
        return {each.id for each in self.received if each.path == "/crm" and each.status == 200}

    async def ready(self) -> bool:
        return (await self.service.get("/readyz"))[0] == 200

    async def not_ready(self, why: str) -> bool:
        status, text = await self.service.get("/readyz")
        return status == 503 and why in text

    async def check_that_everyone_is_told(self, why: str, *, api: bool = True) -> None:
        """`/readyz`, the metric, the log, and who asks the API as the console does."""
        await self.poll(lambda: self.not_ready(why))
        self.assertEqual((await self.service.get("/healthz"))[0], 200)
        self.assertEqual(await self.value("cubehook_store_degraded"), 1)
        self.assertIn("The store cannot be written; work is held in memory", self.said)
        if api:
            status = (await ask(self.service, "GET", "/status")).body
            self.assertIn(why, json.dumps(status))

    def check_answers(self) -> None:
        self.assertEqual(self.watch.wrong, [])
        self.assertLess(max(self.watch.waits), ANSWER_SECONDS + SLACK)

    async def check_that_all_is_kept(self, *, troubled: bool = True) -> None:
        """Every event that the receiver took is in the database, once, with its delivery and its attempt."""
        await self.poll(self.ready)
        self.assertEqual(await self.value("cubehook_store_degraded"), 0)
        (self.assertIn if troubled else self.assertNotIn)("The store is written again", self.said)
        told = self.events()

        async def kept() -> bool:
            rows = self.database().execute("SELECT status, count(*) FROM deliveries GROUP BY 1").fetchall()
            return rows == [("delivered", len(told))]

        await self.poll(kept)
        with closing(self.database()) as database:
            bodies = [json.loads(body) for (body,) in database.execute(EVENTS)]
            self.assertEqual(sorted(body["event_id"] for body in bodies), sorted(told))
            attempts = database.execute("SELECT count(DISTINCT delivery) FROM attempts").fetchone()
            self.assertEqual(attempts, (len(told),))
            unfinished = database.execute("SELECT count(*) FROM calls WHERE NOT ended").fetchone()
            self.assertEqual(unfinished, (0,))
        self.assertEqual(len(told), 3 * self.gateway.counters.calls)
        states = [body["call_state"] for body in self.accepted()]
        self.assertEqual(
            {state: states.count(state) for state in STATES}, dict.fromkeys(STATES, len(told) // 3)
        )

    def check_the_books(self) -> None:
        with closing(self.database()) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])


class StoreFaultTests(FaultCase):
    async def test_a_disk_that_takes_nothing_more(self) -> None:
        await self.begin_watched()
        await self.answered_calls(1)
        # No file may grow, nor be written at all: for whoever writes it is as a full disk is.
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, hard))
        await self.answered_calls(4)
        await self.check_that_everyone_is_told("")
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await self.check_that_all_is_kept()
        self.check_answers()
        log = (self.service.folder / "state" / "log" / "cubehook.log").read_text()
        self.assertRegex(log, r"cubehook\.log is written again; \d+ of its lines are lost")
        await self.answered_calls(1)
        self.check_the_books()

    async def test_a_folder_that_is_deleted_is_told_of(self) -> None:
        await self.begin_watched()
        await self.answered_calls(1)
        state = self.service.folder / "state"
        away = state.with_name("away")
        state.rename(away)
        await self.answered_calls(2)
        # Commands' socket is away with it.
        await self.check_that_everyone_is_told("was deleted or replaced", api=False)
        self.assertIn("was deleted or replaced", (state / "log" / "cubehook.log").read_text())
        shutil.rmtree(state)
        away.rename(state)
        await self.answered_calls(1)
        await self.check_that_all_is_kept()
        self.check_answers()


class OddMachineCase(FaultCase):
    """A machine with a clock that can be set and a disk that can be slow."""

    before = odd.BEFORE
    secrets = ()
    """The receiver's clock is right, and would refuse what is signed by a wrong one."""

    async def begin_odd(self, webhook: str = "") -> None:
        self.odd = Path(self.mktemp()).resolve()
        self.env = {"ODD": str(self.odd)}
        await self.begin_watched(webhook)

    def be_odd(self, ahead: int = 0, commit: float = 0.0) -> None:
        self.odd.write_text(json.dumps({"ahead": ahead, "commit": commit}))
        os.kill(self.pid, signal.SIGUSR2)


class ClockTests(OddMachineCase):
    async def test_a_clock_that_is_set_back_and_forward(self) -> None:
        await self.begin_odd()
        losses = await self.value("cubehook_loss_windows_total", cube="hq")
        for hours in (-25, 24, 0):
            # Some calls are in progress, and some deliveries wait for their next attempt.
            begun = self.gateway.counters.calls
            await self.stop_sink()
            for _ in range(2):
                self.call(hold=30.0)
            await self.poll(partial(self.refused_more_than, self.refused()))
            said = len(self.said)
            self.be_odd(ahead=hours * 3600)
            assert self.service.process is not None
            await self.service.process.wait_for(r"clock was set (back|forward) by \d+ s", said)
            await self.start_sink()
            await self.answered_calls_from(begun, 2)
            stamps = [int(each.headers["webhook-timestamp"]) for each in self.received[-3:]]
            for stamp in stamps:
                self.assertLess(abs(stamp - (time.time() + hours * 3600)), 60)
            self.assertEqual(await self.value("cubehook_registered", cube="hq"), 1)
        self.check_answers()
        self.assertEqual(await self.value("cubehook_loss_windows_total", cube="hq"), losses)
        with closing(self.database()) as database:
            bodies = [json.loads(body) for (body,) in database.execute(EVENTS)]
        self.assertEqual([body["event_id"] for body in bodies if body["inferred"]], [])
        self.assertEqual(await self.value("cubehook_deliveries_pending", webhook="crm"), 0)

    async def test_a_clock_that_was_set_back_while_the_service_did_not_run(self) -> None:
        await self.begin_odd(
            f'[webhooks.dead]\nurl = "http://127.0.0.1:{free_port()}/"\nretry = [3600]\n'
            "breaker = { failures = 1, first = 60 }"
        )
        self.be_odd(ahead=3600)
        assert self.service.process is not None
        await self.service.process.wait_for(r"clock was set forward by 3600 s")
        await self.stop_sink()
        self.call(hold=1.0)
        await self.poll(partial(self.refused_more_than, 0))
        await self.gateway.when_idle()
        await self.poll(partial(self.held_for_at_least, 3600))
        await self.service.process.kill()
        # A new process begins with the right clock.
        process = await self.service.start()
        self.assertRegex(process.text, r"clock is 3[56]\d\d s behind the newest entry of the database")
        # What was held back by the clock of then is not so for an hour more.
        self.assertFalse(await self.held_for_at_least(120))
        await self.start_sink()
        await self.until(lambda: len(self.events()) == 3)

    async def held_for_at_least(self, seconds: float) -> bool:
        """Whether the webhook with no receiver is, by the clock that is right."""
        until = (await ask(self.service, "GET", "/webhooks/dead")).body["held_until"]
        return until is not None and datetime.fromisoformat(until).timestamp() - time.time() >= seconds

    def refused(self) -> int:
        log = self.service.folder / "state" / "log" / "events.log"
        return log.read_text().count("connection_refused")

    async def refused_more_than(self, count: int) -> bool:
        return self.refused() > count

    async def answered_calls_from(self, begun: int, count: int) -> None:
        await self.until(lambda: len(self.events()) >= 3 * (begun + count))


class OpenFilesTests(FaultCase):
    connections = 1

    async def test_too_many_open_files_cost_nothing_that_was_accepted(self) -> None:
        await self.begin_watched()
        await self.answered_calls(1)
        soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f"/proc/{self.pid}/fd")}
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (max(used) + 1, hard))
        # The gateway's connections are open; a delivery may have none, and is tried again.
        for _ in range(3):
            self.call(hold=1.0)
        with self.assertRaises(ResponseNeverReceived):
            await self.service.get("/healthz")
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))
        await self.until(lambda: len(self.events()) == 3 * self.gateway.counters.calls)
        self.assertEqual(await self.service.get("/healthz"), (200, "ok\n"))
        self.assertTrue(await self.ready())
