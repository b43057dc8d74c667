"""Faults of the machine under a load of calls: locks, slow disks, a full one, a clock that is set."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from cubehook.simulator.scenarios import Traffic
from tests.functional.harness import spawn
from tests.functional.test_faults import EVENTS, FaultCase, OddMachineCase, reactor
from tests.proof import small_disk

RATE = 8.0


class LoadCase(FaultCase):
    timeout = 600
    connections = 32

    def begin_load(self) -> None:
        traffic = Traffic(mix={"answered": 1.0}, rate=RATE, hold_seconds=20.0)
        self.load = Deferred.fromCoroutine(self.gateway.make_calls(traffic))
        _ = self.load.addErrback(lambda failure: failure.trap(CancelledError))

    async def end_load(self) -> None:
        self.load.cancel()
        await self.gateway.when_idle()

        async def drained() -> bool:
            return await self.value("cubehook_deliveries_pending", webhook="crm") == 0

        await self.poll(drained)
        print(
            f"{self.gateway.counters.calls} calls, {len(self.watch.waits)} notifications, the longest wait "
            f"{max(self.watch.waits):.2f} s; {len(self.events())} events came"
        )
        self.check_answers()


class LockProof(LoadCase):
    async def lock_for(self, seconds: float) -> None:
        await self.begin_watched()
        self.begin_load()
        await deferLater(reactor, 2.0)
        with closing(self.database()) as other:
            other.isolation_level = None
            other.execute("BEGIN EXCLUSIVE")
            before = len(self.events())
            await deferLater(reactor, seconds)
            if seconds > 2.0:
                await self.check_that_everyone_is_told("database is locked")
                self.assertGreater(len(self.events()), before, "deliveries go on")
            other.execute("ROLLBACK")
        await deferLater(reactor, 2.0)
        await self.end_load()
        await self.check_that_all_is_kept(troubled=seconds > 2.0)

    async def test_locked_for_a_second(self) -> None:
        await self.lock_for(1.0)

    async def test_locked_for_ten_seconds(self) -> None:
        await self.lock_for(10.0)

    async def test_locked_for_a_minute(self) -> None:
        await self.lock_for(60.0)


class SmallDiskProof(LoadCase):
    before = small_disk.BEFORE

    def database(self) -> sqlite3.Connection:
        # SQLite follows links, and this one leads to where only the service is: a copy is looked into.
        copy = Path(self.mktemp())
        copy.mkdir(parents=True)
        for name in ("cubehook.db", "cubehook.db-wal"):
            shutil.copy(self.disk / name, copy)
        connection = sqlite3.connect(copy / "cubehook.db")
        self.addCleanup(connection.close)
        return connection

    async def test_a_disk_that_is_full_and_has_room_again(self) -> None:
        tried = spawn(self, "-c", small_disk.BEFORE, env={"SMALL_DISK": self.made()})
        await tried.ended()
        if tried.exit_code:
            self.skipTest(f"this system lets no user mount anything: {tried.text.splitlines()[-1]}")
        self.env = {"SMALL_DISK": self.made()}
        self.state_dir = self.env["SMALL_DISK"]
        await self.begin_watched()
        self.disk = Path(f"/proc/{self.pid}/root{self.state_dir}")
        ballast = self.disk / "ballast"
        self.begin_load()
        await deferLater(reactor, 1.0)
        with ballast.open("wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(4096))
        await self.check_that_everyone_is_told("full", api=False)
        before = len(self.events())
        await deferLater(reactor, 5.0)
        self.assertGreater(len(self.events()), before, "deliveries go on")
        await self.check_that_everyone_is_told("full", api=False)
        ballast.unlink()
        await self.poll(self.ready)
        await self.end_load()
        await self.check_that_all_is_kept()
        self.check_the_books()
        self.assertIn("its lines are lost until it can", self.said)

    def made(self) -> str:
        path = Path(self.mktemp()).resolve()
        path.mkdir(parents=True)
        return str(path)


class OddProof(OddMachineCase, LoadCase):
    async def test_commits_that_take_seconds(self) -> None:
        await self.begin_odd()
        self.begin_load()
        self.be_odd(commit=3.0)
        await deferLater(reactor, 10.0)
        await self.check_that_everyone_is_told("a commit has been taking longer than 2 s")
        self.be_odd()
        await self.poll(self.ready)
        await self.end_load()
        await self.check_that_all_is_kept()

    async def test_a_clock_that_jumps_to_and_fro(self) -> None:
        await self.begin_odd()
        losses = await self.value("cubehook_loss_windows_total", cube="hq")
        self.begin_load()
        for hours in (-1, -25, 0, 1, 25, 24, 0):
            self.be_odd(ahead=hours * 3600)
            await deferLater(reactor, 4.0)
            self.assertEqual(await self.value("cubehook_registered", cube="hq"), 1)
        await self.end_load()
        await self.check_that_all_is_kept(troubled=False)
        self.assertEqual(await self.value("cubehook_loss_windows_total", cube="hq"), losses)
        with closing(self.database()) as database:
            inferred = [body for (body,) in database.execute(EVENTS) if '"inferred":true' in body]
        self.assertEqual(inferred, [])
