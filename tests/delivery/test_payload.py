"""What is sent of an event."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal
from urllib.parse import parse_qsl

from twisted.trial.unittest import SynchronousTestCase

from cubehook import config
from cubehook.delivery.payload import Renderer, RenderError, preview
from cubehook.events import CallEvent, NoticeType
from cubehook.interfaces import Outbound
from cubehook.notices import about_webhook
from cubehook.records import DeliveryStatus, ErrorClass
from tests.delivery.fakes import OK, Desk, Scripted, webhook


def rendered(desk: Desk, payload: Literal["basic", "full"]) -> bytes:
    rendering = Renderer().of(config.Webhook(id="crm", payload=payload))
    body, content_type = rendering.render(desk.event(desk.call()))
    assert content_type == "application/json"
    return body


class RendererTests(SynchronousTestCase):
    def test_basic_is_the_four_keys_in_order(self) -> None:
        self.assertEqual(
            b'{"call_state":"ALERTING","called_number":"+12512501663","calling_number":"+12517676234",'
            b'"timestamp":"2024-11-23T16:03:36.200940Z"}',
            rendered(Desk(), "basic"),
        )

    def test_full_has_every_key_in_order(self) -> None:
        self.assertEqual(list(CallEvent.__struct_fields__), list(json.loads(rendered(Desk(), "full"))))

    def test_an_event_is_rendered_once_for_several_webhooks(self) -> None:
        desk, renderer = Desk(), Renderer()
        basic = renderer.of(config.Webhook(id="crm"))
        event, other = desk.event(desk.call(), 1), desk.event(desk.call(), 2)
        first, _ = basic.render(event)
        full, _ = renderer.of(config.Webhook(id="crm", payload="full")).render(event)
        self.assertIs(first, renderer.of(config.Webhook(id="erp")).render(event)[0])
        self.assertIs(full, renderer.of(config.Webhook(id="erp", payload="full")).render(event)[0])
        self.assertIn(b"CONNECTED", basic.render(other)[0])
        self.assertEqual(first, basic.render(event)[0])

    def test_basic_can_be_posted_as_a_form(self) -> None:
        desk = Desk()
        rendering = Renderer().of(config.Webhook(id="crm", encoding="form"))
        body, content_type = rendering.render(desk.event(desk.call()))
        self.assertEqual("application/x-www-form-urlencoded", content_type)
        self.assertEqual(
            b"call_state=ALERTING&called_number=%2B12512501663&calling_number=%2B12517676234"
            b"&timestamp=2024-11-23T16%3A03%3A36.200940Z",
            body,
        )
        notice = about_webhook(NoticeType.WEBHOOK_DISABLED, webhook("erp"), 0, desk.ids.next, pending=3)
        fields = dict(parse_qsl(rendering.render(notice)[0].decode()))
        self.assertEqual(
            ("webhook.disabled", "erp", "3"), (fields["type"], fields["webhook"], fields["pending"])
        )

    def test_a_template_that_cannot_be_used_is_told_before_anything_is_sent(self) -> None:
        broken = webhook(payload="template", template="{{ calling_numbr }}")
        with self.assertRaisesRegex(
            ValueError, "^webhook crm: its template cannot be used: line 1: .*calling_number"
        ):
            Renderer().of(broken)
        with self.assertRaisesRegex(ValueError, "neither a template nor a preset"):
            Renderer().of(webhook(payload="template"))

    def test_a_template_that_fails_tells_why_and_where(self) -> None:
        desk = Desk()
        rendering = Renderer().of(webhook(payload="template", template="[\n{{ sequence / 0 }}]"))
        with self.assertRaisesRegex(RenderError, "fails on this event: line 2: expected no division by zero"):
            rendering.render(desk.event(desk.call()))
        rendering = Renderer().of(webhook(payload="template", template='{"a": [1]}', encoding="form"))
        with self.assertRaisesRegex(RenderError, "as a: a form is flat"):
            rendering.render(desk.event(desk.call()))

    def test_preview_shows_a_body_of_each_kind(self) -> None:
        source = '{"text": "{{ summary }}"}'
        shown = preview(webhook(payload="template", template=source, notices=(NoticeType.CUBE_LOST,)))
        self.assertEqual(["ALERTING", "CONNECTED", "DISCONNECTED", "cube.lost"], [kind for kind, _ in shown])
        self.assertEqual(
            {"text": "Call from +1 251-767-6234 to +1 251-250-1663 ended after 1:15"}, json.loads(shown[2][1])
        )
        self.assertIn('"connections":[{', dict(preview(webhook(payload="full")))["ALERTING"])


class DeliveredTests(SynchronousTestCase):
    """Through the dispatcher, to a transport."""

    def sent(self, **settings: Any) -> list[Outbound]:
        transport = Scripted(lambda outbound: OK)
        desk = Desk((webhook(**settings), transport)).start()
        call = desk.call()
        for sequence in (1, 2, 3):
            desk.happens(desk.event(call, sequence))
        return transport.sent

    def test_a_template(self) -> None:
        source = '{"s": {{ call_state }}, "n": "{{ calling_number | number }}"}'
        sent = self.sent(payload="template", template=source)
        self.assertEqual(
            [{"s": state, "n": "+1 251-767-6234"} for state in ("ALERTING", "CONNECTED", "DISCONNECTED")],
            [json.loads(outbound.body) for outbound in sent],
        )
        self.assertEqual({"application/json"}, {outbound.content_type for outbound in sent})

    def test_presets(self) -> None:
        (slack, *_) = self.sent(payload="template", preset="slack")
        self.assertEqual("application/json", slack.content_type)
        self.assertIn("is ringing", json.loads(slack.body)["text"])
        (form, *_) = self.sent(payload="template", preset="form")
        self.assertEqual("application/x-www-form-urlencoded", form.content_type)
        self.assertIn("calling_number=%2B12517676234", form.body.decode())

    def test_a_template_that_cannot_be_used_makes_no_webhook(self) -> None:
        desk = Desk().start()
        with self.assertRaisesRegex(ValueError, "its template cannot be used"):
            desk.dispatcher.add(webhook(payload="template", template="{{"), Scripted())
        transport = Scripted(lambda outbound: OK)
        desk.dispatcher.add(webhook(payload="template", template="[1]"), transport)
        desk.happens(desk.event(desk.call()))
        self.assertEqual([b"[1]"], [outbound.body for outbound in transport.sent])

    def test_an_event_that_a_template_fails_on_is_given_up_and_the_next_goes_on(self) -> None:
        source = "{% if call_state == 'CONNECTED' %}{% else %}[{{ sequence }}]{% endif %}"
        transport = Scripted(lambda outbound: OK)
        desk = Desk((webhook(payload="template", template=source), transport)).start()
        call = desk.call()
        deliveries = [each for sequence in (1, 2, 3) for each in desk.happens(desk.event(call, sequence))]
        self.assertEqual([b"[1]", b"[3]"], [outbound.body for outbound in transport.sent])
        self.assertEqual(
            [DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.DELIVERED],
            [desk.store.status(each) for each in deliveries],
        )
        (attempt,) = [attempt for _, _, attempt in desk.notes.attempts if not attempt.delivered]
        self.assertEqual(ErrorClass.OTHER, attempt.error_class)
        self.assertEqual(
            "the webhook's template fails on this event: expected JSON, and not nothing", attempt.error
        )


class ImportTests(SynchronousTestCase):
    """What is imported costs memory for as long as the service runs."""

    def loaded(self, *settings: str) -> list[str]:
        lines = [
            "import sys, cubehook.service, cubehook.config_reader",
            "from cubehook.config import Webhook",
            "from cubehook.delivery.payload import Renderer",
            "from cubehook.delivery.templates import check",
            *(f"w = Webhook(id='a', {each}); assert not check(w); Renderer().of(w)" for each in settings),
            "print(*sys.modules)",
        ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True
        )
        return done.stdout.split()

    def test_jinja2_is_imported_with_the_first_template_only(self) -> None:
        without = self.loaded("payload='full'", "encoding='form'", "payload='template', preset='slack'")
        self.assertIn("cubehook.service", without)
        self.assertNotIn("jinja2", without)
        self.assertIn("jinja2", self.loaded("payload='template', template='[1]'"))
