"""Findings as they are shown."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from cubehook.doctor.findings import as_builtins, failed, ok, rendered, skipped, summary, warning

FINDINGS = [
    ok("service", "It runs"),
    warning("cube hq", "It is slow", "Wait."),
    failed("router", "It lacks\x1b[2J a line", "On the router:", lines=["uc wsapi", " provider xcc"]),
    skipped("clock", "Nobody told"),
]


class Rendering(SynchronousTestCase):
    def test_lines(self) -> None:
        lines = list(rendered(FINDINGS, unicode=True, colour=lambda colour, text: text))
        self.assertEqual(
            lines,
            [
                "✓ service  It runs",
                "! cube hq  It is slow",
                "           Wait.",
                "✗ router   It lacks\\x1b[2J a line",
                "           On the router:",
                "               uc wsapi",
                "                provider xcc",
                "- clock    Nobody told",
                "",
                "1 well, 1 warning, 1 wrong, 1 not looked at.",
            ],
        )

    def test_plain(self) -> None:
        lines = "\n".join(rendered(FINDINGS, unicode=False, colour=lambda colour, text: text))
        self.assertTrue(lines.isascii())
        self.assertIn("x router ", lines)

    def test_colour(self) -> None:
        lines = "\n".join(
            rendered(FINDINGS, unicode=True, colour=lambda colour, text: f"<{colour[1:]}{text}>")
        )
        self.assertIn("<[31m✗> router", lines)
        self.assertIn("<[32m✓> service", lines)

    def test_summary(self) -> None:
        self.assertEqual(summary([]), "0 well, 0 warnings, 0 wrong.")

    def test_for_programs(self) -> None:
        found = json.loads(json.dumps(as_builtins(FINDINGS)))
        self.assertFalse(found["ok"])
        self.assertEqual(found["summary"], {"ok": 1, "warning": 1, "failed": 1, "skipped": 1})
        self.assertEqual(found["findings"][2]["lines"], ["uc wsapi", " provider xcc"])
        self.assertTrue(as_builtins(FINDINGS[:2])["ok"])
