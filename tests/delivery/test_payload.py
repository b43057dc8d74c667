"""What is sent of an event."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.payload import Renderer
from cubehook.events import CallEvent
from tests.delivery.fakes import Desk


class RendererTests(SynchronousTestCase):
    def test_basic_is_the_four_keys_in_order(self) -> None:
        desk = Desk()
        body = Renderer().render(desk.event(desk.call()), "basic")
        self.assertEqual(
            b'{"call_state":"ALERTING","called_number":"+12512501663","calling_number":"+12517676234",'
            b'"timestamp":"2024-11-23T16:03:36.200940Z"}',
            body,
        )

    def test_full_has_every_key_in_order(self) -> None:
        desk = Desk()
        body = Renderer().render(desk.event(desk.call()), "full")
        self.assertEqual(list(CallEvent.__struct_fields__), list(json.loads(body)))

    def test_an_event_is_rendered_once_for_several_webhooks(self) -> None:
        desk, renderer = Desk(), Renderer()
        event, other = desk.event(desk.call(), 1), desk.event(desk.call(), 2)
        first = renderer.render(event, "basic")
        full = renderer.render(event, "full")
        self.assertIs(first, renderer.render(event, "basic"))
        self.assertIs(full, renderer.render(event, "full"))
        self.assertIn(b"CONNECTED", renderer.render(other, "basic"))
        self.assertEqual(first, renderer.render(event, "basic"))

    def test_an_unknown_payload(self) -> None:
        desk = Desk()
        self.assertRaises(KeyError, Renderer().render, desk.event(desk.call()), "huge")
