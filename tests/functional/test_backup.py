"""A backup of the running service under load, put back; and the way back from an upgrade."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred

from cubehook.simulator.scenarios import Traffic
from tests.functional.test_commands import cubehook
from tests.functional.test_main_job import STATES, MainJobCase


class BackupTests(MainJobCase):
    async def test_under_load_and_back(self) -> None:
        await self.begin()
        calls = Deferred.fromCoroutine(
            self.gateway.make_calls(Traffic(mix={"answered": 1.0}, rate=40.0, hold_seconds=0.5))
        )
        await self.until(lambda: len(self.received) > 30)
        config = str(self.service.config)
        known = {received.id for received in self.received}
        status, output, errors = await cubehook(
            "backup", str(self.service.folder), "--config", config, "--json"
        )
        self.assertEqual((status, errors), (0, ""))
        told = json.loads(output)
        self.assertIn("state/secret.key", told["files"])
        self.assertIn("configuration/cubehook.toml", told["files"])
        _ = calls.addErrback(lambda _: None)
        calls.cancel()
        await self.gateway.when_idle()

        # Not beneath a running service.
        process = self.service.process
        assert process is not None
        status, _, errors = await cubehook("restore", told["file"], "--config", config, "--force")
        self.assertEqual(status, 1)
        self.assertIn(f"in use by another cubehook (process {process.transport.pid})", errors)  # type: ignore[union-attr]
        await process.stop()
        status, output, errors = await cubehook("restore", told["file"], "--config", config, "--force")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("Calls that were in progress then are closed as inferred.", output)
        with closing(sqlite3.connect(self.service.folder / "state" / "cubehook.db")) as database:
            kept = {
                event for (event,) in database.execute("SELECT json_extract(body, '$.event_id') FROM events")
            }
        self.assertEqual(known - kept, set())
        self.assertEqual(len(kept), told["events"])

        self.received.clear()
        await self.service.start()
        await self.gateway.when_registered()
        self.call()
        await self.until(lambda: self.states()[-3:] == STATES)

    async def test_back_from_an_upgrade(self) -> None:
        await self.begin()
        process = self.service.process
        assert process is not None
        await process.stop()
        state = self.service.folder / "state"
        copy = state / "backup" / "cubehook-0003-20241123T120000Z.db"
        copy.parent.mkdir()
        copy.write_bytes((state / "cubehook.db").read_bytes())
        with closing(sqlite3.connect(state / "cubehook.db")) as database, database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        refused = self.service.spawn()
        found = await refused.wait_for(
            r"cannot start: \S+ was written by a newer cubehook.*: cubehook (restore .*)\n"
        )
        await refused.ended()
        self.assertEqual(refused.exit_code, 1)
        status, _, errors = await cubehook(*found[1].split())
        self.assertEqual((status, errors), (0, ""))
        (aside,) = state.glob("before-restore-*")
        self.assertTrue(Path(aside, "cubehook.db").is_file())
        await self.service.start()
