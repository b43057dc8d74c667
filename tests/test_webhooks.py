"""Webhooks that come, change, rotate their secrets and go while the service runs; time is a fake."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cubehook import config
from cubehook import webhooks as webhooks_module
from cubehook.changes import RefusedError, SettingsError
from cubehook.delivery.breaker import State
from cubehook.delivery.signing import decode_secret, sign
from cubehook.events import CallState, Micros
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.records import DeliveryStatus, Trouble
from cubehook.rotation import SigningSecrets
from cubehook.store.errors import ProvisionedError
from cubehook.store.provisioning import KeptWebhook, Provisioned
from cubehook.webhooks import Webhooks
from tests.delivery.fakes import Desk, MemoryStore

A, B, C = ("whsec_" + letters * 8 for letters in ("QUFB", "QkJC", "Q0ND"))
CRM = config.Webhook(id="crm", transport="signing")
DAY = 86_400
HOUR = 3_600


@implementer(ITransport)
class Signing:
    """Signs as the http transport does, and keeps what it would have sent."""

    def __init__(self, plugin: SigningPlugin, context: ITransportContext) -> None:
        self._plugin = plugin
        self._secrets = [decode_secret(secret) for secret in context.secrets]

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def deliver(self, outbound: Outbound) -> Sent:
        if self._plugin.wait is not None:
            await self._plugin.wait
        # The standard's library compares with the real time.
        headers = {
            "webhook-id": outbound.id,
            "webhook-timestamp": str(self._plugin.stamp),
            "webhook-signature": sign(self._secrets, outbound.id, self._plugin.stamp, outbound.body),
        }
        self._plugin.sent.append((outbound.body, headers))
        return self._plugin.answer


class NoOptions(msgspec.Struct, forbid_unknown_fields=True):
    pass


@implementer(ITransportPlugin, IPlugin)
class SigningPlugin:
    name = "signing"
    description = "For tests"
    options = NoOptions

    def __init__(self) -> None:
        self.stamp = int(time.time())
        self.sent: list[tuple[bytes, dict[str, str]]] = []
        self.made: list[config.Webhook] = []
        self.answer = Sent(delivered=True)
        self.wait: Deferred[None] | None = None
        self.broken = False

    def check(self, webhook: config.Webhook, options: Any) -> list[tuple[str, str]]:
        return []

    def create(self, webhook: config.Webhook, options: Any, context: ITransportContext) -> ITransport:
        if self.broken:
            raise ValueError("options.ca_file is gone")
        self.made.append(webhook)
        return Signing(self, context)


class SecretStore(MemoryStore):
    """Also keeps secrets, and is as slow as `waits`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.secrets: dict[str, SigningSecrets] = {}
        self.new = iter([B, C])
        self.waits: Deferred[None] | None = None

    async def rotate_secret(self, webhook: str, at: Micros, overlap: float) -> SigningSecrets:
        if self.waits is not None:
            await self.waits
        if self.secrets[webhook].from_file:
            raise ProvisionedError("it is the file's")
        self.secrets[webhook] = self.secrets[webhook].replaced(next(self.new), at, overlap)
        return self.secrets[webhook]

    async def enable_webhook(self, webhook: str) -> Trouble | None:
        self.disabled.pop(webhook, None)
        return self.troubles.get(webhook)

    async def put_webhook(
        self, webhook: config.Webhook, *, at: Micros, overlap: float, same_receiver: bool = False
    ) -> KeptWebhook:
        new = webhook.id not in self.secrets
        return KeptWebhook(self.secrets.setdefault(webhook.id, SigningSecrets(current=A)), None, new)

    async def delete_webhook(self, webhook: str) -> None:
        del self.secrets[webhook]

    async def fail_orphans(self) -> None:
        pass


class WebhooksCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.plugin = SigningPlugin()
        self.patch(webhooks_module, "find_transports", lambda: ({"signing": self.plugin}, []))
        self.clock = Clock()
        self.store = SecretStore(self.clock)
        self.desk = Desk(clock=self.clock, store=self.store)
        self.changes = 0
        self.webhooks = self.opened()

    def opened(self, *given: config.Webhook, overlap: int = DAY, **known: Any) -> Webhooks:
        settings = config.Config(delivery=config.Delivery(secret_overlap=overlap))
        dispatcher = self.desk.dispatcher
        notes = self.desk.notes
        self.addCleanup(setattr, notes, "disabled", notes.disabled)

        def changed() -> None:
            self.changes += 1

        webhooks = Webhooks(settings, self.clock, self.desk.now, self.store, dispatcher, changed)  # type: ignore[arg-type]
        notes.disabled = lambda webhook, reason: webhooks.was_disabled(webhook.id, reason)  # type: ignore[method-assign]
        self.store.secrets |= {webhook.id: SigningSecrets(current=A) for webhook in given}
        values: dict[str, Any] = {"disabled": {}, "troubles": {}} | known
        pending = values.pop("pending", {})
        webhooks.open(
            Provisioned(cubes=(), webhooks=given, secrets=dict(self.store.secrets), **values), pending
        )
        self.desk.start()
        return webhooks

    def signers(self, *, calls: int = 1) -> set[str]:
        """Which secrets the standard's own library accepts, of what is sent of a new call."""
        before = len(self.plugin.sent)
        self.desk.calls(calls)
        self.desk.advance(0.1)
        sent = self.plugin.sent[before:]
        self.assertEqual(len(sent), calls)
        found = set()
        for secret in (A, B, C):
            try:
                for body, headers in sent:
                    Verifier(secret).verify(body, headers)
                found.add(secret)
            except WebhookVerificationError:
                pass
        return found

    def pass_time(self, seconds: float) -> None:
        """In steps of minutes: this clock fires nothing twice within one."""
        while seconds > 0:
            self.clock.advance(min(60, seconds))
            seconds -= 60


class RotationTests(WebhooksCase):
    def setUp(self) -> None:
        super().setUp()
        self.webhooks = self.opened(
            CRM, config.Webhook(id="audit", transport="signing", states=(CallState.DISCONNECTED,))
        )

    def test_both_verify_during_the_overlap_and_the_new_one_alone_after_it(self) -> None:
        self.assertEqual(self.signers(), {A})
        secret, until = self.successResultOf(self.webhooks.rotate_secret("crm"))
        self.assertEqual((secret, until), (B, self.desk.now() + DAY * 1_000_000))
        self.assertEqual(self.signers(), {A, B})
        self.pass_time(DAY - 10)
        self.assertEqual(self.signers(), {A, B})
        self.pass_time(11)
        self.assertEqual(self.signers(), {B})
        self.assertEqual(len(self.plugin.made), 4)

    def test_a_second_rotation_within_the_overlap(self) -> None:
        _ = self.webhooks.rotate_secret("crm")
        self.pass_time(HOUR)
        _ = self.webhooks.rotate_secret("crm")
        self.assertEqual(self.signers(), {A, B, C})
        self.pass_time(DAY - HOUR + 1)
        self.assertEqual(self.signers(), {B, C})
        self.pass_time(HOUR)
        self.assertEqual(self.signers(), {C})

    def test_the_others_sign_as_before(self) -> None:
        _ = self.webhooks.rotate_secret("crm")
        self.pass_time(DAY + 60)
        self.assertEqual([webhook.id for webhook in self.plugin.made], ["crm", "audit", "crm", "crm"])

    def test_an_overlap_that_a_start_found_ends_too(self) -> None:
        old = self.store.secrets["crm"].replaced(B, self.desk.now(), 100)
        self.successResultOf(self.webhooks.remove("crm"))
        self.webhooks.add(CRM, old)
        self.assertEqual(self.signers(), {A, B})
        self.pass_time(101)
        self.assertEqual(self.signers(), {B})

    def test_a_clock_that_is_set_forward_is_noticed(self) -> None:
        _ = self.webhooks.rotate_secret("crm")
        real = self.desk.now
        self.patch(self.webhooks, "_now", lambda: real() + DAY * 1_000_000)
        self.pass_time(700)
        self.assertEqual(self.signers(), {B})

    def test_what_is_under_way_ends_with_the_signature_it_began_with(self) -> None:
        held: Deferred[None] = Deferred()
        self.plugin.wait = held
        call = self.desk.call()
        self.desk.happens(self.desk.event(call, 1))
        _ = self.webhooks.rotate_secret("crm")
        self.desk.happens(self.desk.event(call, 2))
        self.assertEqual(self.desk.dispatcher.status("crm").in_flight, 0)
        self.plugin.wait = None
        held.callback(None)
        self.desk.advance(1)
        signatures = [headers["webhook-signature"].count("v1,") for _, headers in self.plugin.sent]
        self.assertEqual(signatures, [1, 2])
        self.assertEqual({row.status for row in self.store.rows.values()}, {DeliveryStatus.DELIVERED})

    def test_whoever_stops_waiting_stops_nothing(self) -> None:
        waits: Deferred[None] = Deferred()
        self.store.waits = waits
        asked = self.webhooks.rotate_secret("crm")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        waits.callback(None)
        self.assertEqual(self.signers(), {A, B})

    def test_what_the_store_refuses_changes_nothing(self) -> None:
        self.store.secrets["crm"] = SigningSecrets(current=A, from_file=True)
        self.failureResultOf(self.webhooks.rotate_secret("crm"), ProvisionedError)
        self.failureResultOf(self.webhooks.rotate_secret("nobody"), KeyError)
        self.assertEqual(len(self.plugin.made), 2)
        self.assertEqual(self.signers(), {A})

    def test_no_overlap(self) -> None:
        webhooks = self.opened(config.Webhook(id="other", transport="signing"), overlap=0)
        self.assertEqual(self.successResultOf(webhooks.rotate_secret("other")), (B, None))

    def test_a_transport_that_cannot_be_made_any_more_keeps_what_there_is(self) -> None:
        self.plugin.broken = True
        self.assertEqual(self.successResultOf(self.webhooks.rotate_secret("crm"))[0], B)
        self.assertEqual(self.signers(), {A})
        self.plugin.broken = False
        self.pass_time(DAY + 1)
        self.assertEqual(self.signers(), {B})

    def test_closed_it_does_nothing_more_and_leaves_no_timer(self) -> None:
        waits: Deferred[None] = Deferred()
        self.store.waits = waits
        rotated = self.webhooks.rotate_secret("crm")
        self.webhooks.close()
        _ = Deferred.fromCoroutine(self.desk.dispatcher.stop(1.0))
        waits.callback(None)
        self.assertEqual(self.successResultOf(rotated)[0], B)
        self.assertEqual(len(self.plugin.made), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_secret_is_in_no_repr(self) -> None:
        _ = self.webhooks.rotate_secret("crm")
        shown = repr(vars(self.webhooks)["_secrets"])
        self.assertNotIn(A, shown)
        self.assertNotIn(B, shown)


class DisabledTests(WebhooksCase):
    def gone(self) -> None:
        self.plugin.answer = Sent(delivered=False, gone=True, status=410)
        self.desk.calls(1)
        self.desk.advance(0.1)
        self.plugin.answer = Sent(delivered=True)
        self.plugin.sent.clear()

    def test_neither_a_rotation_nor_the_end_of_one_enables_it(self) -> None:
        webhooks = self.opened(CRM)
        self.gone()
        self.assertEqual(list(webhooks.disabled), ["crm"])
        _ = webhooks.rotate_secret("crm")
        self.pass_time(DAY + 60)
        self.assertEqual(self.desk.calls(1), [])
        self.assertEqual(self.plugin.sent, [])
        self.assertEqual([webhook.enabled for webhook in self.plugin.made], [True, False, False])

    def test_enabled_again_it_is_sent_what_waited_signed_with_what_signs_now(self) -> None:
        webhooks = self.opened(CRM)
        self.gone()
        _ = webhooks.rotate_secret("crm")
        self.pass_time(DAY + 60)
        self.successResultOf(webhooks.enable("crm"))
        self.assertEqual((self.store.disabled, dict(webhooks.disabled)), ({}, {}))
        self.desk.advance(5)
        self.assertEqual(len(self.plugin.sent), 1)
        self.assertEqual(self.signers(), {B})

    def test_one_that_an_earlier_life_disabled(self) -> None:
        self.store.disabled["crm"] = "it said 410"
        webhooks = self.opened(CRM, disabled={"crm": "it said 410"}, pending={"crm": 3})
        self.assertEqual(dict(webhooks.disabled), {"crm": "it said 410"})
        # Shown as it is configured.
        self.assertEqual(dict(webhooks.known), {"crm": CRM})
        self.assertEqual(self.desk.calls(1), [])
        self.assertEqual(webhooks.status("crm").pending, 3)
        self.successResultOf(webhooks.enable("crm"))
        self.assertEqual(self.signers(), {A})

    def test_what_was_not_disabled_is_left_alone(self) -> None:
        webhooks = self.opened(CRM)
        self.successResultOf(webhooks.enable("crm"))
        self.assertEqual(len(self.plugin.made), 1)

    def test_what_its_settings_disable_is_not_enabled(self) -> None:
        webhooks = self.opened(config.Webhook(id="crm", transport="signing", enabled=False))
        failure = self.failureResultOf(webhooks.enable("crm"), RefusedError)
        self.assertIn("disabled by its settings", str(failure.value))
        self.failureResultOf(webhooks.enable("nobody"), KeyError)


class ChangeTests(WebhooksCase):
    def test_one_is_added(self) -> None:
        webhooks = self.opened()
        webhooks.add(CRM, SigningSecrets(current=C))
        self.assertEqual(self.signers(), {C})
        self.assertEqual(list(webhooks.known), ["crm"])
        with self.assertRaises(ValueError):
            webhooks.add(CRM, SigningSecrets(current=A))
        self.assertEqual(self.signers(), {C})

    def test_one_is_changed(self) -> None:
        webhooks = self.opened(CRM)
        changed = msgspec.structs.replace(CRM, states=(CallState.CONNECTED,))
        before = self.changes
        self.successResultOf(webhooks.replace(changed))
        self.assertEqual(self.changes, before + 1)
        self.assertEqual(self.desk.calls(1), [])
        self.assertEqual(webhooks.known["crm"], changed)
        with self.assertRaises(KeyError):
            _ = webhooks.replace(config.Webhook(id="nobody", transport="signing"))

    def test_a_change_that_cannot_be_made_changes_nothing(self) -> None:
        webhooks = self.opened(CRM)
        self.plugin.broken = True
        with self.assertRaises(ValueError):
            _ = webhooks.replace(msgspec.structs.replace(CRM, states=(CallState.CONNECTED,)))
        self.assertEqual(webhooks.known["crm"], CRM)
        self.assertEqual(self.signers(), {A})

    def test_one_is_removed(self) -> None:
        webhooks = self.opened(CRM)
        _ = webhooks.rotate_secret("crm")
        self.successResultOf(webhooks.remove("crm"))
        self.assertEqual(self.desk.calls(1), [])
        self.assertEqual(dict(webhooks.known), {})
        self.pass_time(DAY + 60)
        with self.assertRaises(KeyError):
            webhooks.status("crm")
        with self.assertRaises(KeyError):
            _ = webhooks.remove("crm")

    def test_one_that_cannot_be_made_at_the_start_leaves_the_others(self) -> None:
        webhooks = self.opened(config.Webhook(id="bad", transport="absent"), CRM)
        self.assertEqual(self.signers(), {A})
        # Its secret can be rotated all the same.
        self.assertEqual(self.successResultOf(webhooks.rotate_secret("bad"))[0], B)


class UnmadeTests(WebhooksCase):
    """Webhooks whose transports cannot be made."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.broken = True
        self.webhooks = self.opened(CRM, pending={"crm": 3})

    def test_it_is_there_and_says_why_nothing_is_sent(self) -> None:
        self.assertEqual(dict(self.webhooks.known), {"crm": CRM})
        status = self.webhooks.status("crm")
        self.assertEqual((status.enabled, status.pending), (True, 3))
        self.assertIn("options.ca_file is gone", status.problem or "")
        self.assertNotIn("webhook crm", status.problem or "")

    def test_its_events_wait_until_it_is_mended(self) -> None:
        [delivery] = self.desk.calls(1)
        self.assertEqual(self.webhooks.status("crm").pending, 4)
        failure = self.failureResultOf(self.webhooks.enable("crm"), RefusedError)
        self.assertIn("options.ca_file is gone", str(failure.value))
        self.plugin.broken = False
        self.successResultOf(self.webhooks.enable("crm"))
        self.desk.advance(1)
        self.assertEqual(self.store.status(delivery), DeliveryStatus.DELIVERED)
        self.assertIsNone(self.webhooks.status("crm").problem)
        # From here on it is like any other.
        self.plugin.broken = True
        with self.assertRaises(ValueError):
            _ = self.webhooks.replace(msgspec.structs.replace(CRM, name="x"))

    def change(self, **values: Any) -> Any:
        return self.webhooks.change("crm", lambda old: msgspec.structs.replace(old, **values))

    def test_it_can_be_paused_and_renamed_but_not_be_given_what_does_not_work(self) -> None:
        self.successResultOf(self.change(enabled=False, name="Other"))
        self.assertEqual(self.webhooks.known["crm"].name, "Other")
        self.assertEqual(self.desk.calls(1), [])
        failure = self.failureResultOf(self.change(url="https://x.example/"), SettingsError)
        self.assertIn("options.ca_file is gone", failure.value.problems["transport"])
        self.successResultOf(self.change(enabled=True))
        self.assertIn("options.ca_file is gone", self.webhooks.status("crm").problem or "")
        self.plugin.broken = False
        self.successResultOf(self.change(url="https://x.example/"))
        self.assertEqual(self.signers(), {A})

    def test_a_test_of_it_tells_what_is_wrong(self) -> None:
        with self.assertRaises(SettingsError):
            _ = self.webhooks.try_out(CRM, CallState.ALERTING)

    def test_what_is_not_given_is_told_as_that(self) -> None:
        with self.assertRaises(SettingsError) as caught:
            self.webhooks.check(config.Webhook(id="x", transport="signing", payload="template"))
        self.assertTrue(caught.exception.problems["template"].endswith("found nothing"))

    def test_a_rotated_secret_is_used_once_it_is_mended(self) -> None:
        self.successResultOf(self.webhooks.rotate_secret("crm"))
        self.plugin.broken = False
        self.successResultOf(self.webhooks.enable("crm"))
        self.desk.advance(1)
        self.assertEqual(self.signers(), {A, B})

    def test_it_is_removed(self) -> None:
        self.successResultOf(self.webhooks.delete("crm"))
        self.assertEqual(dict(self.webhooks.known), {})
        self.plugin.broken = False
        self.successResultOf(self.webhooks.create(CRM))
        self.plugin.broken = True
        with self.assertRaises(ValueError):
            _ = self.webhooks.replace(msgspec.structs.replace(CRM, name="x"))


class ProvideTests(WebhooksCase):
    """What the configuration file has is changed while the service runs."""

    def settings(self, *given: config.Webhook, **values: Any) -> config.Config:
        return config.Config(webhooks=given, **values)

    def provide(
        self,
        *given: config.Webhook,
        keys: tuple[str, ...] = (),
        secret: str = A,
        troubles: dict[str, Trouble] | None = None,
        **values: Any,
    ) -> None:
        for webhook in given:
            known = self.store.secrets.get(webhook.id, SigningSecrets(current=secret))
            self.store.secrets[webhook.id] = known.replaced(secret, self.desk.now(), DAY, from_file=True)
        stored = Provisioned(
            cubes=(),
            webhooks=given,
            secrets=dict(self.store.secrets),
            disabled={},
            troubles=troubles or {},
        )
        settings = self.settings(*given, **values)
        self.webhooks.check_provided(settings, [each.id for each in given], keys)
        self.webhooks.provide(settings, keys, stored)

    def test_they_come_change_and_go(self) -> None:
        self.provide(CRM)
        self.assertEqual(self.webhooks.provisioned, {"crm"})
        self.assertEqual(self.signers(), {A})
        self.provide(msgspec.structs.replace(CRM, name="Other"))
        self.assertEqual(self.webhooks.known["crm"].name, "Other")
        failure = self.failureResultOf(self.webhooks.delete("crm"), ProvisionedError)
        self.assertIn("cubehook reload", str(failure.value))
        self.provide()
        self.assertEqual((dict(self.webhooks.known), self.webhooks.provisioned), ({}, frozenset()))
        self.assertEqual(self.desk.calls(1), [])

    def test_once_closed_nothing_comes_changes_or_goes(self) -> None:
        self.provide(CRM)
        self.webhooks.close()
        self.provide(config.Webhook(id="other", transport="signing"))
        self.assertEqual((list(self.webhooks.known), self.webhooks.provisioned), (["crm"], {"crm"}))

    def test_one_that_stays_is_not_touched(self) -> None:
        self.provide(CRM)
        made = len(self.plugin.made)
        self.provide(CRM, keys=("log.level", "delivery.secret_overlap"))
        # Once to see whether it can be.
        self.assertEqual(len(self.plugin.made), made + 1)
        self.assertEqual(self.changes, 1)

    def test_another_secret_signs_beside_the_former(self) -> None:
        self.provide(CRM)
        self.provide(CRM, secret=B)
        self.assertEqual(self.signers(), {A, B})

    def test_defaults_reach_who_has_no_value_of_its_own_wherever_it_was_made(self) -> None:
        self.successResultOf(self.webhooks.create(config.Webhook(id="own", transport="signing", timeout=9.0)))
        self.successResultOf(self.webhooks.create(config.Webhook(id="hand", transport="signing")))
        self.provide(CRM)
        self.webhooks.was_disabled("hand", "its receiver answered 410")
        before = len(self.plugin.made)
        settings = self.settings(CRM, delivery=config.Delivery(timeout=3.0))
        self.webhooks.provide(settings, ("delivery.timeout",))
        self.assertEqual(sorted(each.id for each in self.plugin.made[before:]), ["crm", "hand"])
        # What was disabled while in use stays so.
        self.assertEqual(dict(self.webhooks.disabled), {"hand": "its receiver answered 410"})
        self.assertFalse(self.webhooks.status("hand").enabled)

    def test_one_that_was_made_elsewhere_becomes_the_files(self) -> None:
        self.successResultOf(self.webhooks.create(CRM))
        self.webhooks.was_disabled("crm", "its receiver answered 410")
        self.provide(CRM)
        self.assertEqual(self.webhooks.provisioned, {"crm"})
        self.assertEqual(dict(self.webhooks.disabled), {"crm": "its receiver answered 410"})
        self.provide(msgspec.structs.replace(CRM, name="Other"))
        self.assertEqual(dict(self.webhooks.disabled), {})

    def test_one_that_was_disabled_is_tried_once_before_the_rest(self) -> None:
        self.provide(CRM)
        self.webhooks.was_disabled("crm", "its receiver answered 410")
        trouble = Trouble(failing_since=1, held_until=self.desk.now(), openings=0, told=True)
        self.provide(msgspec.structs.replace(CRM, name="Other"), troubles={"crm": trouble})
        self.assertIsNot(self.webhooks.status("crm").state, State.CLOSED)
        # What was not disabled is held back as it is, whatever the store was told last.
        self.provide(msgspec.structs.replace(CRM, name="Third"))
        held = self.webhooks.status("crm")
        self.assertEqual(held.failing_since, 1)
        other = msgspec.structs.replace(CRM, method="PUT")
        self.provide(other)
        self.assertIs(self.webhooks.status("crm").state, State.CLOSED)
        self.provide(msgspec.structs.replace(other, name="Fourth"), troubles={"crm": trouble})
        self.assertIs(self.webhooks.status("crm").state, State.CLOSED)

    def test_one_that_is_disabled_while_a_change_is_kept_is_enabled_in_the_store_too(self) -> None:
        self.successResultOf(self.webhooks.create(config.Webhook(id="hand", transport="signing")))
        self.provide(CRM)
        for name in ("crm", "hand"):
            # Its old receiver said so when the change was written already, and that was written last.
            self.webhooks.was_disabled(name, "its receiver answered 410")
            self.store.disabled[name] = "its receiver answered 410"
        self.provide(msgspec.structs.replace(CRM, method="PUT"))
        self.successResultOf(
            self.webhooks.change("hand", lambda old: msgspec.structs.replace(old, method="PUT"))
        )
        self.assertEqual((dict(self.webhooks.disabled), self.store.disabled), ({}, {}))
        # Who did not change stays as the receiver wants it.
        self.webhooks.was_disabled("crm", "its receiver answered 410")
        self.store.disabled["crm"] = "its receiver answered 410"
        self.provide(msgspec.structs.replace(CRM, method="PUT"))
        self.assertEqual(list(self.store.disabled), ["crm"])

    def test_what_cannot_be_made_is_found_before_anything_is_changed(self) -> None:
        self.provide(CRM)
        self.plugin.broken = True
        other = config.Webhook(id="other", transport="signing")
        with self.assertRaises(SettingsError) as caught:
            self.webhooks.check_provided(self.settings(CRM, other), ["other"], ())
        self.assertEqual(list(caught.exception.problems), ["webhooks.other"])
        with self.assertRaises(SettingsError) as caught:
            self.webhooks.check_provided(self.settings(CRM), [], ("egress.proxy",))
        self.assertEqual(list(caught.exception.problems), ["webhooks.crm"])
        self.webhooks.check_provided(self.settings(), [], ("egress.proxy",))
        self.webhooks.check_provided(self.settings(CRM), [], ())

    def test_what_could_not_be_made_hinders_nobody_and_is_tried_again(self) -> None:
        self.plugin.broken = True
        self.webhooks = self.opened(CRM)
        self.assertIn("is gone", self.webhooks.status("crm").problem or "")
        self.provide(msgspec.structs.replace(CRM, name="Other"), keys=("egress.proxy",))
        self.plugin.broken = False
        self.webhooks.provide(self.webhooks.settings, ())
        self.assertIsNone(self.webhooks.status("crm").problem)

    def test_nobody_changes_them_meanwhile(self) -> None:
        self.successResultOf(self.webhooks.create(CRM))
        going_on: Deferred[None] = Deferred()

        async def hold() -> None:
            async with self.webhooks.held(["crm"]):
                await going_on

        held = Deferred.fromCoroutine(hold())
        changing = self.webhooks.change("crm", lambda old: msgspec.structs.replace(old, name="Other"))
        self.assertNoResult(changing)
        going_on.callback(None)
        self.successResultOf(held)
        self.successResultOf(changing)
        self.assertEqual(self.webhooks.known["crm"].name, "Other")
