"""What a service does not hold in memory as long as nobody asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]


class IdleTests(SynchronousTestCase):
    def test_what_is_not_imported(self) -> None:
        program = (
            "import sys, cubehook.tap, cubehook.service, cubehook.plugins.cubehook_transports\n"
            "print(*sys.modules)"
        )
        told = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
        )
        loaded = told.stdout.split()
        self.assertIn("cubehook.service", loaded)
        for name in (
            "alembic",
            "cubehook.console.pages",
            "cubehook.console.render",
            "cubehook.operations.manhole",
            "jinja2",
            "nats",
            "pika",
            "redis",
            "sqlalchemy.dialects.postgresql",
            "twisted.conch",
        ):
            found = [each for each in loaded if each == name or each.startswith(f"{name}.")]
            self.assertEqual(found, [], name)
