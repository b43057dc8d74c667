"""What the documentation shows of the payloads is what is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

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
