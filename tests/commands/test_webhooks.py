"""`cubehook enable`, `cubehook rotate-secret`, and which service commands speak to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cubehook.control import RefusedError
from tests.commands.support import CommandCase

WEBHOOK: dict[str, Any] = {
    "id": "crm",
    "pending": 1200,
    "held_until": None,
    "disabled_reason": None,
    "problem": None,
}
GONE = {**WEBHOOK, "disabled_reason": "its receiver answered 410\x1b[2J"}


class Enable(CommandCase):
    def test_one_that_was_disabled(self) -> None:
        answers = {"/webhooks/crm": [GONE], "/webhooks/crm/enable": [WEBHOOK]}
        status, output, errors = self.run_command("enable", "crm", answers=answers)
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("Webhook crm is enabled", output)
        self.assertIn("answered 410", output)
        self.assertIn("1,200 deliveries are pending", output)
        self.assertNotIn("\x1b", output)
        self.assertEqual([asked[0] for asked in self.service.asked], ["GET", "POST"])

    def test_one_that_was_not(self) -> None:
        held = {**WEBHOOK, "held_until": "2024-11-24T10:00:00.000000Z", "pending": 1}
        answers = {"/webhooks/crm": [WEBHOOK], "/webhooks/crm/enable": [held]}
        status, output, _ = self.run_command("enable", "crm", answers=answers)
        self.assertEqual(status, 0)
        self.assertIn("was not disabled", output)
        self.assertIn("1 delivery is pending", output)
        self.assertIn("held back until", output)

    def test_one_that_has_another_problem(self) -> None:
        broken = {**WEBHOOK, "problem": "its transport did not start"}
        answers = {"/webhooks/crm": [GONE], "/webhooks/crm/enable": [broken]}
        _, output, _ = self.run_command("enable", "crm", answers=answers)
        self.assertIn("its transport did not start", output)

    def test_as_json(self) -> None:
        answers = {"/webhooks/crm": [GONE], "/webhooks/crm/enable": [WEBHOOK]}
        _, output, _ = self.run_command("enable", "crm", "--json", answers=answers)
        self.assertEqual(json.loads(output), WEBHOOK)

    def test_a_refusal(self) -> None:
        refusal = RefusedError(409, "conflict", "the file says that it is not enabled", {})
        answers: dict[str, list[Any]] = {"/webhooks/crm": [WEBHOOK], "/webhooks/crm/enable": [refusal]}
        status, output, errors = self.run_command("enable", "crm", answers=answers)
        self.assertEqual((status, output), (1, ""))
        self.assertEqual(errors, "cubehook enable: the file says that it is not enabled\n")

    def test_names_are_quoted(self) -> None:
        answers = {"/webhooks/a%2Fb": [WEBHOOK], "/webhooks/a%2Fb/enable": [WEBHOOK]}
        self.assertEqual(self.run_command("enable", "a/b", answers=answers)[0], 0)


class RotateSecret(CommandCase):
    rotated = {"webhook": "crm", "secret": "whsec_new", "former_until": "2024-11-24T10:00:00.000000Z"}

    def test_the_secret_alone_is_on_standard_output(self) -> None:
        answers = {"/webhooks/crm/rotate-secret": [self.rotated]}
        status, output, errors = self.run_command("rotate-secret", "crm", answers=answers)
        self.assertEqual((status, output), (0, "whsec_new\n"))
        self.assertIn("former secret signs until 2024-11-24", errors)
        self.assertNotIn("whsec_", errors)

    def test_without_an_overlap(self) -> None:
        answers = {"/webhooks/crm/rotate-secret": [{**self.rotated, "former_until": None}]}
        _, output, errors = self.run_command("rotate-secret", "crm", answers=answers)
        self.assertEqual(output, "whsec_new\n")
        self.assertIn("Only the new secret signs", errors)

    def test_as_json(self) -> None:
        answers = {"/webhooks/crm/rotate-secret": [self.rotated]}
        _, output, _ = self.run_command("rotate-secret", "crm", "--json", answers=answers)
        self.assertEqual(json.loads(output), self.rotated)


class Places(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.here = Path(self.mktemp()).resolve()
        self.here.mkdir()

    def led_to(self, *place: str) -> Path | None:
        answers = {"/webhooks/crm/rotate-secret": [RotateSecret.rotated]}
        status, _, errors = self.run_command("rotate-secret", "crm", answers=answers, place_options=place)
        self.assertEqual(status, 0, errors)
        return self.folder

    def test_a_folder(self) -> None:
        self.assertEqual(self.led_to("--state-dir", "/srv/x"), Path("/srv/x"))
        self.assertEqual(self.led_to("--state-dir", "x"), Path.cwd() / "x")

    def test_a_configuration_whose_secrets_are_not_in_this_environment(self) -> None:
        config = self.here / "cubehook.toml"
        config.write_text('state_dir = "state"\n[webhooks.crm]\nheaders = { a = "${CRM_TOKEN}" }\n')
        self.assertEqual(self.led_to("--config", str(config)), self.here / "state")

    def test_the_usual_places(self) -> None:
        self.patch_places(self.here / "cubehook.toml")
        self.assertEqual(self.led_to(), Path.cwd() / "var")
        (self.here / "cubehook.toml").write_text('state_dir = "state"\n')
        self.assertEqual(self.led_to(), self.here / "state")

    def test_a_configuration_that_does_not_tell(self) -> None:
        (self.here / "bad.toml").write_text("state_dir = 5\n")
        for name, words in (("bad.toml", "state_dir: expected a path"), ("none.toml", "No such file")):
            status, output, errors = self.run_command(
                "rotate-secret", "crm", place_options=("--config", str(self.here / name))
            )
            self.assertEqual((status, output), (1, ""))
            self.assertIn(words, errors)

    def patch_places(self, *places: Path) -> None:
        from cubehook import config_reader

        self.patch(config_reader, "PLACES", places)
