"""Ready-made payloads: they have the receivers' form, and let nothing through that means something there."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Webhook
from cubehook.delivery.presets import escape_slack, form, slack, teams
from cubehook.delivery.samples import HOSTILE, samples
from cubehook.delivery.templates import check, maker
from cubehook.events import CallEvent, CallState, Notice, NoticeType, Outcome
from tests.delivery.fakes import call_event

LOST = Notice(
    type=NoticeType.CUBE_LOST,
    timestamp="2024-11-23T16:03:36.200940Z",
    event_id="64YBA8PFPXG05",
    data={"cube": "hq", "state": "silent", "reason": "no answer", "last_error": None},
)


def runs(told: CallEvent | Notice) -> list[dict[str, Any]]:
    """The TextRuns of the card of Teams; nothing else in it may hold text."""
    (attachment,) = teams(told)["attachments"]
    blocks = attachment["content"]["body"]
    assert {block["type"] for block in blocks} == {"RichTextBlock"}
    return [run for block in blocks for run in block["inlines"]]


class SlackTests(SynchronousTestCase):
    def test_it_is_a_text_without_formatting(self) -> None:
        event = call_event(call_state=CallState.DISCONNECTED, outcome=Outcome.MISSED, ring_seconds=12.034)
        self.assertEqual(
            {
                "text": "Missed call from +1 251-767-6234 to +1 251-250-1663, rang 12 s",
                "mrkdwn": False,
            },
            slack(event),
        )
        self.assertEqual("Cube hq is lost: no answer", slack(LOST)["text"])

    def test_nobody_can_be_mentioned(self) -> None:
        text = slack(call_event(calling_number="<!channel> & <http://x|y>"))["text"]
        self.assertIn("&lt;!channel&gt; &amp; &lt;http://x|y&gt;", text)
        self.assertEqual("&amp;lt;", escape_slack("&lt;"), "what is escaped once is so again")


class TeamsTests(SynchronousTestCase):
    def test_it_is_a_message_with_a_card(self) -> None:
        message = teams(call_event())
        self.assertEqual("message", message["type"])
        (attachment,) = message["attachments"]
        self.assertEqual("application/vnd.microsoft.card.adaptive", attachment["contentType"])
        card = attachment["content"]
        self.assertEqual(("AdaptiveCard", "1.2"), (card["type"], card["version"]))

    def test_the_card_tells_what_happened_and_between_whom(self) -> None:
        texts = [run["text"] for run in runs(call_event(calling_withheld=True, calling_number=None))]
        self.assertEqual("Call from a withheld number to +1 251-250-1663 is ringing", texts[0])
        self.assertEqual(["From: ", "withheld", "To: ", "+1 251-250-1663", "Cube: ", "hq"], texts[1:7])
        self.assertEqual(["Time: ", "2024-11-23 16:03:36 UTC"], texts[7:])

    def test_what_went_wrong_is_red(self) -> None:
        self.assertEqual("Attention", runs(LOST)[0]["color"])
        missed = call_event(call_state=CallState.DISCONNECTED, outcome=Outcome.MISSED)
        self.assertEqual("Attention", runs(missed)[0]["color"])
        self.assertEqual("Default", runs(call_event())[0]["color"])

    def test_it_stays_below_what_teams_takes(self) -> None:
        event = call_event(calling_number="x" * 100_000, called_number="y" * 100_000)
        self.assertLess(len(json.dumps(teams(event))), 28_000)


class FormTests(SynchronousTestCase):
    def test_every_scalar_of_full_is_a_field_and_null_is_empty(self) -> None:
        made = maker(Webhook(id="crm", payload="template", preset="form"))
        body, content_type = made(call_event(calling_number="+1 & =", ring_seconds=7.0))
        self.assertEqual("application/x-www-form-urlencoded", content_type)
        fields = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
        expected = [name for name in CallEvent.__struct_fields__ if name != "connections"]
        self.assertEqual(expected, [name for name, _ in fields])
        values = dict(fields)
        self.assertEqual(
            ("+1 & =", "", "false"), (values["calling_number"], values["guid"], values["inferred"])
        )
        self.assertEqual(
            ("ALERTING", "7.0", "1"), tuple(values[k] for k in ("call_state", "ring_seconds", "sequence"))
        )

    def test_a_notice_is_flat_and_its_own_keys_win(self) -> None:
        fields = form(LOST)
        self.assertEqual(
            ("cube.lost", "silent", "no answer"), (fields["type"], fields["state"], fields["reason"])
        )


class SampleTests(SynchronousTestCase):
    def test_samples_are_all_kinds_that_a_webhook_is_sent(self) -> None:
        wanted = Webhook(id="crm", states=(CallState.CONNECTED,), notices=(NoticeType.CUBE_LOST,))
        kinds = {
            told.type if isinstance(told, Notice) else told.call_state
            for told in (sample.event.payload for sample in samples(wanted))
        }
        self.assertEqual({CallState.CONNECTED, NoticeType.CUBE_LOST}, kinds)
        every = [sample.event.payload for sample in samples(Webhook(id="crm"))]
        self.assertEqual(
            set(Outcome), {told.outcome for told in every if isinstance(told, CallEvent)} - {None}
        )

    def test_presets_take_every_sample(self) -> None:
        for preset in ("slack", "teams", "form"):
            webhook = Webhook(id="crm", payload="template", preset=preset, notices=tuple(NoticeType))
            self.assertEqual([], check(webhook))
            made = maker(webhook)
            for about, event in samples(webhook):
                body, content_type = made(event.payload)
                if content_type == "application/json":
                    json.loads(body)
                self.assertNotIn(b"\n", body, about)

    def test_hostile_text_comes_through_a_form_whole(self) -> None:
        made = maker(Webhook(id="crm", payload="template", preset="form"))
        body, _ = made(call_event(calling_number=HOSTILE))
        self.assertEqual(HOSTILE, dict(parse_qsl(body.decode()))["calling_number"])
