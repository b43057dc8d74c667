"""What a transport says of a library that is not installed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.transports.libraries import installed, needs, noted


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
