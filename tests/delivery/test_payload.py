"""What is sent of an event."""

from __future__ import annotations

import json
from typing import Literal

from twisted.trial.unittest import SynchronousTestCase

from cubehook import config
from cubehook.delivery.payload import Renderer
from cubehook.events import CallEvent
from tests.delivery.fakes import Desk


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
