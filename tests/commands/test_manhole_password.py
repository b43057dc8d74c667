"""`cubehook manhole-password`: what it asks, prints and writes."""

from __future__ import annotations

import io
import stat
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cubehook import cli
from cubehook.operations.manhole.passwords import matches, read_users


class ManholePasswordTests(SynchronousTestCase):
    def run_command(self, *arguments: str, typed: str) -> tuple[int, str, str]:
        self.patch(sys, "stdin", io.StringIO(typed))
        with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
            try:
                status = cli.main(["manhole-password", *arguments])
            except SystemExit as left:
                status = int(left.code or 0)
        return status, output.getvalue(), errors.getvalue()

    def test_a_line_is_printed(self) -> None:
        status, output, _ = self.run_command("bob", typed="correct horse\n")
        self.assertEqual(status, 0)
        user, _, hashed = output.strip().partition(":")
        self.assertEqual(user, "bob")
        self.assertTrue(matches("correct horse", hashed))
        self.assertNotIn("correct", output)

    def test_it_takes_the_place_of_the_users_line_in_a_file(self) -> None:
        path = Path(self.mktemp())
        status, output, _ = self.run_command("bob", str(path), typed="correct horse\n")
        self.assertEqual(status, 0)
        self.assertIn("was added", output)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        path.write_text("# people\n" + path.read_text() + "ann:kept\n")
        status, output, _ = self.run_command("bob", str(path), typed="battery staple\n")
        self.assertIn("has another password", output)
        users = read_users(path)
        self.assertEqual(sorted(users), ["ann", "bob"])
        self.assertTrue(matches("battery staple", users["bob"]))
        self.assertEqual(users["ann"], "kept")
        self.assertIn("# people", path.read_text())

    def test_what_is_refused(self) -> None:
        for typed in ("short\n", "", "tab\tulator\n"):
            status, output, errors = self.run_command("bob", typed=typed)
            self.assertEqual((status, output), (1, ""), typed)
            self.assertIn("8 characters", errors)
        for user in ("b:b", "", "b b", "b\n"):
            self.assertEqual(self.run_command(user, typed="correct horse\n")[0], 2, user)
        status, _, errors = self.run_command("bob", "/nowhere/at/all", typed="correct horse\n")
        self.assertEqual(status, 1)
        self.assertIn("cannot be written", errors)
