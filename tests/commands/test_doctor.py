"""`cubehook doctor`: how it is called, and what it makes of what was found."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cubehook import cli
from cubehook.commands import doctor
from cubehook.doctor.examination import NoCubeError
from cubehook.doctor.findings import failed, ok, warning

WELL = [ok("clock", "It agrees"), warning("cube hq", "It is slow")]
ILL = [*WELL, failed("router", "It lacks a line", lines=["uc wsapi"])]


class Doctor(SynchronousTestCase):
    def run_command(
        self, *argv: str, found: Any = WELL, typed: bytes = b"", encoding: str = "utf-8"
    ) -> tuple[int | str | None, str, str]:
        """Exit status, standard output and standard error; `asked` is what was to be examined."""
        self.asked: Any = None

        def run(main: Any) -> Any:
            self.asked = main.keywords["asked"]
            if isinstance(found, Exception):
                raise found
            return found

        output = io.TextIOWrapper(io.BytesIO(), encoding)
        errors = io.StringIO()
        with (
            mock.patch.object(doctor, "_run", run),
            mock.patch.object(sys, "stdout", output),
            mock.patch.object(sys, "stderr", errors),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed))),
        ):
            try:
                status: int | str | None = cli.main(["doctor", "--config", "c.toml", *argv])
            except SystemExit as exit:  # argparse leaves by it
                status = exit.code
            output.flush()
        return status, output.buffer.getvalue().decode(encoding), errors.getvalue()

    def test_status(self) -> None:
        status, output, _ = self.run_command()
        self.assertEqual(status, 0)
        self.assertIn("✓ clock    It agrees", output)
        self.assertEqual(self.asked.config, Path("c.toml"))
        status, output, _ = self.run_command(found=ILL)
        self.assertEqual(status, 1)
        self.assertIn("✗ router ", output)

    def test_terminal_without_signs(self) -> None:
        _, output, _ = self.run_command(found=ILL, encoding="ascii")
        self.assertIn("x router ", output)

    def test_colour(self) -> None:
        self.assertNotIn("\x1b", self.run_command()[1])
        self.assertIn("\x1b[32m✓\x1b[0m", self.run_command("--color", "always")[1])

    def test_for_programs(self) -> None:
        status, output, _ = self.run_command("--json", found=ILL)
        self.assertEqual((status, json.loads(output)["ok"]), (1, False))

    def test_texts(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"uc wsapi\xff\n")
        self.run_command("--router-config", str(path), "--registrations", "-", typed=b"Provider XCC\n")
        self.assertEqual(self.asked.router, "uc wsapi\ufffd\n")
        self.assertEqual(self.asked.registrations, "Provider XCC\n")

    def test_texts_that_cannot_be_had(self) -> None:
        status, output, errors = self.run_command("--router-config", "/nowhere/x")
        self.assertEqual((status, output), (1, ""))
        self.assertIn("/nowhere/x cannot be read: No such file", errors)
        status, _, errors = self.run_command("--router-config", "-", "--registrations", "-")
        self.assertEqual(status, 2)
        self.assertIn("can be read once", errors)

    def test_unknown_cube(self) -> None:
        status, output, errors = self.run_command("--cube", "x", found=NoCubeError("there is no cube 'x'"))
        self.assertEqual((status, output, errors), (2, "", "cubehook doctor: there is no cube 'x'\n"))
