"""`cubehook backup` and `cubehook restore`: what they say."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from unittest import mock

from cubehook import cli
from tests.test_archive import ArchiveCase


class BackupTests(ArchiveCase):
    def setUp(self) -> None:
        super().setUp()
        self.nicer: list[int] = []
        self.patch(os, "nice", self.nicer.append)

    def run_command(self, *argv: str | Path) -> tuple[int | str | None, str, str]:
        output, errors = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stdout", output), mock.patch.object(sys, "stderr", errors):
            status = cli.main([str(each) for each in argv])
        return status, output.getvalue(), errors.getvalue()

    def test_there_and_back(self) -> None:
        status, output, errors = self.run_command("backup", self.target, "--state-dir", self.state)
        self.assertEqual((status, errors, self.nicer), (0, "", [10]))
        self.assertRegex(
            output, rf"\A{self.target}: \d+\.\d MB, 5 files, in \d+\.\d s; read again and sound\.\n"
        )
        self.assertIn("0 calls, 0 events (no event), 3 deliveries, 2 of them pending; schema ", output)
        self.assertIn("Without a configuration, since --state-dir names none.", output)

        status, output, errors = self.run_command("restore", self.target, "--state-dir", self.state)
        self.assertEqual((status, output), (1, ""))
        self.assertRegex(errors, r"\Acubehook restore: \S+ holds admin-token, .*--force")

        status, output, _ = self.run_command("restore", self.target, "--state-dir", self.state, "--force")
        self.assertEqual(status, 0)
        self.assertRegex(output, rf"\A5 files as of \S+ \S+ in {self.state}, owned by \w+\.\n")
        self.assertRegex(output, r"What was there is in \S+/before-restore-\d{8}T\d{6}Z: delete it")
        self.assertIn("2 deliveries that were pending then are sent, also those that arrived since", output)

    def test_without_what_was_pending_and_as_json(self) -> None:
        status, output, _ = self.run_command("backup", self.target, "--state-dir", self.state, "--json")
        told = json.loads(output)
        self.assertEqual((status, told["file"], told["pending"]), (0, str(self.target), 2))
        arguments = ("restore", self.target, "--state-dir", self.folder / "new", "--no-pending")
        status, output, _ = self.run_command(*arguments, "--json")
        told = json.loads(output)
        self.assertEqual((status, told["expired"], told["aside"], told["made_at"][-1]), (0, 2, None, "Z"))
        _, output, _ = self.run_command(*arguments, "--force")
        self.assertIn("2 deliveries that were pending then are expired.", output)

    def test_a_folder_and_the_configuration(self) -> None:
        configuration = self.folder / "cubehook.toml"
        configuration.write_text('state_dir = "state"\n')
        status, output, errors = self.run_command("backup", self.folder, "--config", configuration)
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(output, rf"\A{self.folder}/cubehook-\d{{8}}T\d{{6}}Z\.tar: \d+\.\d MB, 6 files")

    def test_what_goes_wrong(self) -> None:
        status, _, errors = self.run_command("restore", self.folder / "gone", "--state-dir", self.state)
        self.assertEqual(status, 1)
        self.assertEqual(
            errors, f"cubehook restore: {self.folder / 'gone'} cannot be read: No such file or directory\n"
        )
        status, _, errors = self.run_command("backup", self.target, "--config", self.folder / "gone")
        self.assertEqual(status, 1)
        self.assertIn("gone", errors)
