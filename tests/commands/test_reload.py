"""`cubehook reload`."""

from __future__ import annotations

import json
from typing import Any

from cubehook.control import RefusedError
from tests.commands.support import CommandCase

NONE: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
DONE: dict[str, Any] = {
    "file": "/etc/cubehook/cubehook.toml",
    "cubes": {"added": ["lab"], "changed": [], "removed": []},
    "webhooks": NONE,
    "settings": ["log.level"],
    "needs_restart": [],
}


class Reload(CommandCase):
    def reload(self, answer: Any, *options: str) -> tuple[Any, str, str]:
        found = self.run_command("reload", *options, answers={"/reload": [answer]})
        self.assertEqual(self.service.asked, [("POST", "/reload")])
        return found

    def test_what_was_changed(self) -> None:
        self.assertEqual(
            self.reload(DONE),
            (
                0,
                "/etc/cubehook/cubehook.toml was reloaded.\n  cube added: lab\n"
                "  settings changed: log.level\n",
                "",
            ),
        )

    def test_nothing(self) -> None:
        status, output, _ = self.reload({**DONE, "cubes": NONE, "settings": []})
        self.assertEqual(status, 0)
        self.assertIn("nothing has changed", output)

    def test_what_needs_a_restart_is_said_apart(self) -> None:
        status, output, errors = self.reload({**DONE, "needs_restart": ["state_dir", "manhole.ssh"]})
        self.assertEqual(status, 0)
        self.assertIn("cube added: lab", output)
        self.assertEqual(errors, "cubehook reload: takes effect only at a restart: state_dir, manhole.ssh\n")

    def test_what_could_not_be_used(self) -> None:
        _, _, errors = self.reload({**DONE, "warnings": ["key.pem is no key\x1b[2J"]})
        self.assertEqual(errors, "cubehook reload: key.pem is no key\\x1b[2J\n")

    def test_every_mistake(self) -> None:
        fields = {"log.level": "expected one of ...; found \x1b[2J", "cubes.hq": "expected a table"}
        status, output, errors = self.reload(
            RefusedError(422, "invalid", "cubehook.toml has 2 errors; nothing was changed", fields)
        )
        self.assertEqual((status, output), (1, ""))
        for words in ("nothing was changed", "  log.level: expected", "  cubes.hq: expected a table"):
            self.assertIn(words, errors)
        self.assertNotIn("\x1b", errors)

    def test_as_json(self) -> None:
        _, output, _ = self.reload(DONE, "--json")
        self.assertEqual(json.loads(output), DONE)
