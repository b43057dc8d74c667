"""What the documentation shows of the payloads is what is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Webhook
from cubehook.config_reader import read
from cubehook.delivery.payload import preview
from cubehook.delivery.presets import slack
from cubehook.delivery.samples import samples
from cubehook.delivery.templates import check, maker
from cubehook.delivery.templating.filters import FILTERS
from cubehook.events import BasicPayload, CallEvent, ConnectionView, Outcome

PAYLOADS = Path(__file__).parent.parent / "docs" / "payloads.md"


class Payloads(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = PAYLOADS.read_text("utf-8")
        self.examples = re.findall(r"```json\n(.*?)```", self.text, re.DOTALL)

    def test_the_examples_are_payloads_key_by_key(self) -> None:
        for example, kind in zip(self.examples, (BasicPayload, CallEvent), strict=True):
            event = msgspec.json.decode(example, type=kind)
            # As objects with the order of their keys, nested ones included.
            self.assertEqual(json.dumps(json.loads(example)), json.dumps(msgspec.to_builtins(event)))

    def test_the_tables_have_every_key_in_order(self) -> None:
        for title, kind in (("Key", CallEvent), ("Key of a connection", ConnectionView)):
            table = self.text.partition(f"| {title} | Type |")[2].partition("\n\n")[0]
            keys = [
                key for line in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])
            ]
            self.assertEqual(keys, [field.name for field in msgspec.structs.fields(kind)])

    def test_every_outcome_is_explained(self) -> None:
        table = self.text.partition("| `outcome` | Meaning |")[2].partition("\n\n")[0]
        self.assertEqual(set(re.findall(r"(?m)^\| `(\w+)`", table)), {outcome.value for outcome in Outcome})


class Templates(SynchronousTestCase):
    def setUp(self) -> None:
        _, _, text = PAYLOADS.read_text("utf-8").partition("## Presets and templates")
        self.text = text.partition("\n## ")[0]

    def test_the_examples_are_webhooks_that_nothing_is_wrong_with(self) -> None:
        examples = re.findall(r"```toml\n(.*?)```", self.text, re.DOTALL)
        path = Path(self.mktemp())
        path.write_text("\n".join(examples), "utf-8")
        environ = dict.fromkeys(("SLACK_PATH", "TEAMS_PATH", "CRM_KEY"), "x")
        config = read(path, lambda webhook: (), environ)
        self.assertEqual(len(examples), len(config.webhooks))
        for webhook in config.webhooks:
            for _, body in preview(webhook):
                self.assertTrue(body)

    def test_every_filter_gives_what_is_said(self) -> None:
        table = self.text.partition("| filter | of | gives |")[2].partition("\n\n")[0]
        rows = [re.findall("`(.*?)`", line) for line in table.splitlines()[2:]]
        answered = samples(Webhook(id="crm"))[2].event.payload
        for filter, value, gives in rows:
            source = f"[{{{{ ({value}) | {filter} }}}}]"
            body, _ = maker(Webhook(id="crm", payload="template", template=source))(answered)
            self.assertEqual([json.loads(gives)], json.loads(body), filter)
        self.assertEqual(set(FILTERS), {filter.partition("(")[0] for filter, _, _ in rows})

    def test_what_a_preset_and_a_mistake_look_like(self) -> None:
        missed = next(event for about, event in samples(Webhook(id="x")) if "missed" in about).payload
        self.assertIn(f"`{json.dumps(slack(missed))}`", self.text)
        source = '{\n"a": 1,\n"caller": {{ calling_numbr }},\n}'
        (mistake,) = check(Webhook(id="crm", payload="template", template=source))
        self.assertIn(f"template: expected {mistake[1]}; found", self.text)
