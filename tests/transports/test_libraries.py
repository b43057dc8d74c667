"""What a transport says of a library that is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cubehook.transports.libraries import installed, needs, noted
from tests.functional.harness import ROOT


class LibraryTests(SynchronousTestCase):
    def test_one_that_is_there(self) -> None:
        self.assertTrue(installed("twisted.internet.defer"))
        self.assertEqual(needs("twisted.internet.defer", "queue"), [])
        self.assertEqual(noted("Into a queue", "twisted", "queue"), "Into a queue")

    def test_one_that_is_missing(self) -> None:
        for module in ("no_such_library", "no_such_library.client", "twisted.no_such_module"):
            [(key, expected)] = needs(module, "queue")
            self.assertEqual(key, "transport")
            self.assertIn(f"package {module.partition('.')[0]} is missing", expected)
            self.assertIn("install cubehook[queue]", expected)
            self.assertEqual(
                noted("Into a queue", module, "queue"),
                "Into a queue (not usable yet: install cubehook[queue])",
            )


WITHOUT = """
import sys
for name in ("pika", "paho"):
    sys.modules[name] = None
from cubehook.cli import main
sys.argv = ["cubehook", *sys.argv[1:]]
sys.exit(main())
"""


class MissingTests(SynchronousTestCase):
    """The service where no extra was installed."""

    def run_without(self, *arguments: str, program: str = WITHOUT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def test_its_transports_are_listed_with_what_to_install(self) -> None:
        ran = self.run_without("transports")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertRegex(ran.stdout, r"(?m)^amqp: .*\(not usable yet: install cubehook\[amqp\]\)$")
        self.assertRegex(ran.stdout, r"(?m)^mqtt: .*\(not usable yet: install cubehook\[mqtt\]\)$")
        self.assertRegex(ran.stdout, r"(?m)^ *routing_key: ")

    def test_a_webhook_that_wants_one_is_refused(self) -> None:
        file = Path(self.mktemp())
        file.write_text(
            '[webhooks.a]\ntransport = "amqp"\nurl = "amqp://mq"\noptions = { routing_key = "q" }\n'
            '[webhooks.m]\ntransport = "mqtt"\nurl = "mqtt://mq"\noptions = { topic = "t" }\n'
        )
        ran = self.run_without("check", str(file))
        self.assertEqual(ran.returncode, 1, ran.stdout)
        self.assertRegex(ran.stderr, r"webhooks\.a\.transport: .*pika is missing: install cubehook\[amqp\]")
        self.assertRegex(ran.stderr, r"webhooks\.m\.transport: .*paho is missing: install cubehook\[mqtt\]")
        found = self.run_without("check", str(file), program=WITHOUT.replace('("pika", "paho")', "()"))
        self.assertEqual(found.returncode, 0, found.stderr)
        self.assertIn("amqp", found.stdout)
