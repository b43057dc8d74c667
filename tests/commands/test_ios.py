"""`cubehook ios`."""

from __future__ import annotations

import json
from typing import Any

from cubehook.control import RefusedError
from tests.commands.support import CommandCase

CUBE = {
    "id": "hq",
    "provider_url": "http://192.0.2.1:8090/cisco_xcc",
    "application_url": "http://192.0.2.20:8090/xcc/hq",
}


class Ios(CommandCase):
    def test_printed(self) -> None:
        status, output, errors = self.run_command("ios", "hq", answers={"/cubes/hq": [CUBE]})
        self.assertEqual((status, errors), (0, ""))
        self.assertTrue(output.endswith("  remote-url http://192.0.2.20:8090/xcc/hq\n"), output)

    def test_as_json(self) -> None:
        _, output, _ = self.run_command("ios", "hq", "--json", answers={"/cubes/hq": [CUBE]})
        self.assertIn("remote-url", json.loads(output)["ios"])

    def test_there_is_none(self) -> None:
        answers: dict[str, list[Any]] = {
            "/cubes/a%2Fb": [RefusedError(404, "not_found", "There is none", {})]
        }
        status, output, errors = self.run_command("ios", "a/b", answers=answers)
        self.assertEqual((status, output, errors), (1, "", "cubehook ios: There is none\n"))
