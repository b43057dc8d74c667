"""The state folder and the database, as they are found."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Cube, Webhook
from cubehook.doctor import state
from cubehook.doctor.findings import Finding, Level
from cubehook.store import keyfile, schema
from cubehook.store.provisioning import provision, put_cube, put_webhook
from cubehook.store.sealing import Sealer, unlock
from cubehook.store.sqlite import writer_engine

HQ = Cube(id="hq", provider_url="http://192.0.2.1:8090/cisco_xcc", application_url="http://192.0.2.20:8090/x")
LAB = Cube(
    id="lab", provider_url="http://192.0.2.2:8090/cisco_xcc", application_url="http://192.0.2.20:8090/y"
)
CRM = Webhook(id="crm", url="http://crm.example/x?token=hunter2")
ERP = Webhook(id="erp", url="http://erp.example/x")


def said(findings: Iterable[Finding], level: Level) -> str:
    return "\n".join(each.text for each in findings if each.level is level)


class StateCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o750)
        os.chmod(self.folder, 0o750)
        self.path = self.folder / state.NAME

    def make(self) -> None:
        """As a service leaves it: hq and crm are the file's, lab and erp are not."""
        engine: Engine = writer_engine(self.path)
        with engine.begin() as connection:
            schema.metadata.create_all(connection)
            schema.version.create(connection)
            connection.execute(insert(schema.version).values(version_num=schema.REVISION))
        sealer: Sealer = unlock(engine, self.path)
        with engine.begin() as connection:
            provision(connection, [HQ], [CRM], sealer, os.urandom, 1, 0)
            put_cube(connection, LAB)
            put_webhook(connection, ERP, sealer, os.urandom, 1, 0, same_receiver=False)
        engine.dispose()

    def execute(self, statement: str) -> None:
        connection = sqlite3.connect(self.path)
        connection.execute(statement)
        connection.commit()
        connection.close()


class Folders(StateCase):
    def found(self) -> list[Finding]:
        return list(state.folder_findings(self.folder))

    def test_well(self) -> None:
        self.make()
        self.assertEqual({each.level for each in self.found()}, {Level.OK})

    def test_modes(self) -> None:
        os.chmod(self.folder, 0o755)
        self.assertIn("mode 0755", said(self.found(), Level.WARNING))
        os.chmod(self.folder, 0o777)
        self.assertIn("written by everybody", said(self.found(), Level.FAILED))

    def test_key_that_others_can_read(self) -> None:
        self.make()
        os.chmod(self.folder / keyfile.NAME, 0o640)
        self.assertIn("secret.key may be read by others (mode 0640)", said(self.found(), Level.FAILED))
        # It is for the service to mend that, and to say so.
        self.assertEqual((self.folder / keyfile.NAME).stat().st_mode & 0o777, 0o640)

    def test_file_of_another_user(self) -> None:
        self.make()
        with mock.patch.object(os, "geteuid", return_value=self.folder.stat().st_uid + 1):
            self.assertIn("not all can be seen", said(self.found(), Level.WARNING))

    def test_room(self) -> None:
        for free, level in ((10 << 20, Level.FAILED), (500 << 20, Level.WARNING), (5 << 30, Level.OK)):
            with mock.patch.object(shutil, "disk_usage", lambda path, free=free: mock.Mock(free=free)):
                self.assertIn("are free on its disk", said(self.found(), level))

    def test_not_there(self) -> None:
        (found,) = state.folder_findings(self.folder / "var")
        self.assertEqual(found.level, Level.SKIPPED)
        with mock.patch.object(os, "access", return_value=False):
            (found,) = state.folder_findings(self.folder / "var")
        self.assertEqual(found.level, Level.FAILED)
        (self.folder / "file").write_text("")
        (found,) = state.folder_findings(self.folder / "file")
        self.assertIn("is no folder", found.text)


class Databases(StateCase):
    def found(self, *, running: bool = False, limit: float = 5.0) -> list[Finding]:
        return list(state.database_findings(self.folder, running=running, limit=limit))

    def test_well(self) -> None:
        self.make()
        before = sorted(self.folder.iterdir())
        self.assertEqual([each.level for each in self.found()], [Level.OK] * 2)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_in_use(self) -> None:
        self.make()
        engine = writer_engine(self.path)
        with engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM cubes")
            self.assertEqual([each.level for each in self.found()], [Level.OK] * 2)
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
            connection.commit()
            # What was committed may be in the log only.
            self.assertIn("newer cubehook", said(self.found(), Level.FAILED))
        engine.dispose()

    def test_not_there(self) -> None:
        self.assertEqual([each.level for each in self.found()], [Level.SKIPPED])
        self.assertEqual([each.level for each in self.found(running=True)], [Level.FAILED])

    def test_user_who_may_not_look(self) -> None:
        self.make()
        with mock.patch.object(state, "_is_there", side_effect=PermissionError(13, "Permission denied")):
            self.assertIn("cannot be looked at: Permission denied", said(self.found(), Level.FAILED))
            self.assertEqual(state.kept(self.folder), (state.Kept(), []))

    def test_versions(self) -> None:
        self.make()
        self.execute("UPDATE alembic_version SET version_num = '0001'")
        self.assertIn("the next start copies it", said(self.found(), Level.WARNING))
        self.execute("UPDATE alembic_version SET version_num = '0999'")
        self.assertIn("newer cubehook", said(self.found(), Level.FAILED))
        self.execute("DROP TABLE alembic_version")
        self.assertIn("not cubehook's", said(self.found(), Level.FAILED))

    def test_no_database(self) -> None:
        self.path.write_bytes(b"Dear diary, " * 1000)
        self.assertIn("cannot be read", said(self.found(), Level.FAILED))

    def test_damaged(self) -> None:
        self.make()
        with self.path.open("r+b") as file:
            file.seek(self.path.stat().st_size // 2 // 4096 * 4096)
            file.write(b"\xff" * 8192)
        self.assertTrue(said(self.found(), Level.FAILED))

    def test_time_that_is_over(self) -> None:
        self.make()
        with mock.patch.object(state, "_STEPS", 1):
            self.assertIn("too large", said(self.found(limit=-1.0), Level.OK))


class Keeping(StateCase):
    def test_what_the_file_does_not_have(self) -> None:
        self.make()
        kept, findings = state.kept(self.folder)
        self.assertEqual((kept.cubes, kept.webhooks), ([LAB], [ERP]))
        self.assertIn("opens what the webhooks keep secret", said(findings, Level.OK))

    def test_disabled(self) -> None:
        self.make()
        self.execute("UPDATE webhooks SET disabled_reason = 'it is gone' WHERE id = 'crm'")
        self.assertEqual(state.kept(self.folder)[0].disabled, {"crm": "it is gone"})

    def test_key(self) -> None:
        self.make()
        key = self.folder / keyfile.NAME
        key.write_bytes(Fernet.generate_key())
        kept, findings = state.kept(self.folder)
        self.assertIn("not the key that the webhooks crm, erp", said(findings, Level.FAILED))
        self.assertEqual((kept.cubes, kept.webhooks), ([LAB], []))
        key.write_text("no key\n")
        self.assertIn("line 1", said(state.kept(self.folder)[1], Level.FAILED))
        key.unlink()
        self.assertIn("is missing", said(state.kept(self.folder)[1], Level.FAILED))

    def test_nothing(self) -> None:
        self.assertEqual(state.kept(self.folder), (state.Kept(), []))
        self.path.write_bytes(b"Dear diary, " * 1000)
        self.assertEqual(state.kept(self.folder), (state.Kept(), []))
