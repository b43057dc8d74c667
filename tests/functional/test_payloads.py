"""Payloads of a webhook's own, through the real service."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

from cubehook.events import CallEvent
from cubehook.simulator.sink import Received
from tests.functional.test_main_job import SECRET, STATES, MainJobCase

TEMPLATE = """
{
  "subject": "{{ summary }}",
  "caller": {{ calling_number }},
  "legs": [{% for leg in connections %}{{ leg.called_number }}{% if not loop.last %},{% endif %}{% endfor %}],
  "key": "${KEY}"
}
"""


class PayloadTests(MainJobCase):
    env = {"KEY": "k-1"}

    def of(self, path: str) -> list[Received]:
        return [received for received in self.received if received.path == path]

    def hook(self, id: str, settings: str) -> str:
        url = f"http://127.0.0.1:SINK/{id}"
        return f'[webhooks.{id}]\nurl = "{url}"\nsecret = "{SECRET}"\npayload = "template"\n{settings}\n'

    async def test_presets_and_a_template(self) -> None:
        hooks = (
            self.hook("chat", 'preset = "slack"\nnotices = ["cube.registered"]'),
            self.hook("teams", 'preset = "teams"\nstates = ["DISCONNECTED"]'),
            self.hook("form", 'preset = "form"'),
            self.hook("own", f"template = '''{TEMPLATE}'''"),
            self.hook("typed", 'template = "[1]"\nheaders = { Content-Type = "application/vnd.x+json" }'),
        )
        await self.begin(payload="full", webhook="\n".join(hooks))
        await self.until(lambda: len(self.of("/chat")) == 1)
        made = self.call()
        await self.until(
            lambda: (
                len(self.of("/crm")) == len(self.of("/form")) == len(self.of("/own")) == 3
                and len(self.of("/chat")) == 4
                and len(self.of("/typed")) == 3
                and len(self.of("/teams")) == 1
            )
        )
        for received in self.received:
            self.assertEqual("ok", received.signature)
        full = [json.loads(received.body) for received in self.of("/crm")]

        said = [json.loads(received.body)["text"] for received in self.of("/chat")]
        self.assertEqual("Cube hq is registered", said[0])
        for text, what in zip(
            said[1:], (" is ringing$", " was answered after ", " ended after "), strict=True
        ):
            self.assertRegex(text, f"^Call from .* to .*{what}")

        (card,) = self.of("/teams")
        self.assertEqual("application/json", card.headers["content-type"])
        self.assertIn(said[3], card.body.decode())

        for received, event, state in zip(self.of("/form"), full, STATES, strict=True):
            self.assertEqual("application/x-www-form-urlencoded", received.headers["content-type"])
            fields = dict(parse_qsl(received.body.decode(), keep_blank_values=True))
            self.assertEqual({*CallEvent.__struct_fields__} - {"connections"}, set(fields))
            self.assertEqual(
                (state, event["calling_number"], event["event_id"]),
                (fields["call_state"], fields["calling_number"], fields["event_id"]),
            )

        for received, event in zip(self.of("/own"), full, strict=True):
            body = json.loads(received.body)
            self.assertEqual(["subject", "caller", "legs", "key"], list(body))
            self.assertEqual((event["calling_number"], "k-1"), (body["caller"], body["key"]))
            self.assertEqual([leg["called_number"] for leg in event["connections"]], body["legs"])
        self.assertTrue(made.called.lstrip("+") in json.loads(self.of("/own")[0].body)["legs"][0])

        self.assertEqual(
            {"application/vnd.x+json"}, {each.headers["content-type"] for each in self.of("/typed")}
        )

    async def test_an_event_that_a_template_fails_on_is_given_up_with_the_reason(self) -> None:
        # Right for every sample, which have one GUID, and not for the call to come.
        real = "guid and guid != '694646BC1D2311E7A8D2826ACB31D85A'"
        source = f"[{{{{ 1 / (0 if {real} and sequence == 2 else 1) }}}}]"
        await self.begin(webhook=self.hook("picky", f'template = "{source}"'))
        self.call()
        await self.until(lambda: len(self.of("/picky")) >= 2 and len(self.of("/crm")) == 3)
        rows = self.database().execute(
            "SELECT e.state, d.status FROM deliveries d JOIN events e ON e.id = d.event "
            "WHERE d.webhook = 'picky' ORDER BY d.id"
        )
        told = dict(rows.fetchall())
        self.assertEqual(("delivered", "failed"), (told["ALERTING"], told["CONNECTED"]))
        log = (self.service.folder / "state" / "log" / "cubehook.log").read_text()
        self.assertRegex(log, "picky.*template fails on this event: line 1: expected no division by zero")
