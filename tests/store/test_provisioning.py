"""The configuration file's cubes and webhooks at a start, and the secrets that webhooks sign with."""

from __future__ import annotations

from typing import Any

import msgspec

from cubehook.config import Cube, Retention, Webhook
from cubehook.delivery.signing import decode_secret
from cubehook.events import CallState, Micros
from cubehook.records import DeliveryStatus, Trouble
from cubehook.rotation import Former, SigningSecrets
from cubehook.store import ProvisionedError, Store, StoreClosedError, StoreError
from cubehook.store import store as store_module
from cubehook.store.provisioning import Provisioned
from tests.store.support import NOON, SECOND, StoreCase

HQ = Cube(
    id="hq",
    provider_url="http://192.0.2.1:8090/cisco_xcc",
    application_url="http://192.0.2.20:8090/xcc/hq",
)
CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls", headers={"X-Key": "1"}, retry=(1.0, 2.5))
A, B, C = ("whsec_" + letters * 8 for letters in ("QUFB", "QkJC", "Q0ND"))
HOUR = 3_600 * SECOND
DAY = 24 * HOUR


def signed(secret: str | None) -> Webhook:
    return msgspec.structs.replace(CRM, secret=secret)


class ProvisionCase(StoreCase):
    async def provision(
        self, store: Store, *webhooks: Webhook, at: Micros = NOON, overlap: float = 86_400
    ) -> Provisioned:
        return await store.provision([], webhooks, at=at, overlap=overlap)

    async def by_hand(self, store: Store, webhook: Webhook, secret: str) -> None:
        """Put in a webhook that is not the file's."""
        sealer = self.sealer()
        row = (
            webhook.id,
            sealer.seal(msgspec.json.encode(webhook).decode()),
            sealer.seal(msgspec.json.encode(SigningSecrets(current=secret)).decode()),
        )
        await store._do(
            lambda connection: (
                connection.exec_driver_sql(
                    "INSERT INTO webhooks (id, provisioned, settings, secret) VALUES (?, 0, ?, ?)", row
                ).rowcount
            )
        )


class ProvisionTests(ProvisionCase):
    async def test_the_files_cubes_and_webhooks_are_there_and_their_secrets_apart(self) -> None:
        store = await self.opened()
        found = await store.provision([HQ], [CRM, Webhook(id="audit", secret=A)], at=NOON, overlap=0)
        self.assertEqual(found.cubes, (HQ,))
        self.assertEqual(found.webhooks, (Webhook(id="audit"), CRM))
        self.assertEqual(found.secrets["audit"], SigningSecrets(current=A, from_file=True))
        made = found.secrets["crm"]
        self.assertEqual(len(decode_secret(made.current)), 32)
        self.assertEqual((made.from_file, made.former), (False, ()))
        self.assertEqual(found.disabled, {})

    async def test_what_the_file_did_is_told(self) -> None:
        store = await self.opened()
        at: dict[str, Any] = {"at": NOON, "overlap": 0}
        await self.by_hand(store, Webhook(id="hand"), A)
        found = await store.provision([HQ], [CRM, Webhook(id="audit")], **at)
        self.assertEqual(found.by_file, {"cubes": {"added": ["hq"]}, "webhooks": {"added": ["crm", "audit"]}})
        self.assertEqual((await store.provision([HQ], [CRM, Webhook(id="audit")], **at)).by_file, {})
        lab = msgspec.structs.replace(HQ, id="lab")
        other = msgspec.structs.replace(HQ, description="other")
        found = await store.provision([other, lab], [signed(B), Webhook(id="hand", name="Ours")], **at)
        self.assertEqual(
            found.by_file,
            {
                "cubes": {"added": ["lab"], "changed": ["hq"]},
                "webhooks": {"changed": ["crm", "hand"], "removed": ["audit"]},
            },
        )
        await self.execute(store, "UPDATE cubes SET settings = 'x' WHERE id = 'hq'")
        found = await store.provision([other], [], **at)
        self.assertEqual(found.by_file["cubes"], {"changed": ["hq"], "removed": ["lab"]})

    async def execute(self, store: Store, statement: str) -> None:
        await store._do(lambda connection: connection.exec_driver_sql(statement).rowcount)

    async def test_what_is_gone_from_the_file_goes_and_what_came_otherwise_stays(self) -> None:
        store = await self.opened()
        branch = Cube(id="branch", provider_url="", application_url="")
        await store.provision([HQ, branch], [CRM], at=NOON, overlap=0)
        by_hand = Webhook(id="hand", url="https://hand.example/")
        await self.by_hand(store, by_hand, A)
        await store.put_cube(msgspec.structs.replace(HQ, id="lab"))
        found = await store.provision([HQ], [], at=NOON, overlap=0)
        self.assertEqual([cube.id for cube in found.cubes], ["hq", "lab"])
        self.assertEqual(found.webhooks, (by_hand,))
        self.assertEqual(found.secrets, {"hand": SigningSecrets(current=A)})
        # Written into the file under the same name, it is the file's from then on.
        found = await self.provision(store, by_hand)
        self.assertEqual(found.secrets, {"hand": SigningSecrets(current=A)})
        self.assertEqual((await self.provision(store)).webhooks, ())

    async def test_a_disabled_webhook_stays_so_until_its_settings_or_secret_change(self) -> None:
        store = await self.opened()
        trouble = Trouble(failing_since=NOON, held_until=NOON + HOUR, openings=3, told=True)

        async def disable() -> None:
            await store.disable_webhook("crm", "the receiver answered 410", NOON)
            await store.save_trouble("crm", trouble)

        await self.provision(store, signed(A))
        await disable()
        await store.close()
        store = await self.opened()
        for _ in range(2):
            found = await self.provision(store, signed(A))
            self.assertEqual(found.disabled, {"crm": "the receiver answered 410"})
            self.assertEqual(found.troubles, {"crm": trouble})
        # That the file does not name the secret any more is no change.
        self.assertIn("crm", (await self.provision(store, CRM)).disabled)
        self.assertEqual(self.rows("SELECT disabled_at FROM webhooks"), [(NOON,)])
        changed = msgspec.structs.replace(CRM, states=(CallState.DISCONNECTED,))
        for webhook in (changed, msgspec.structs.replace(changed, secret=B)):
            for _ in range(2):
                found = await self.provision(store, webhook)
                # It is tried once before the rest, as its receiver is the same.
                self.assertEqual((found.disabled, found.troubles), ({}, {"crm": trouble}))
            await disable()

    async def test_only_another_receiver_ends_what_trouble_there_was(self) -> None:
        store = await self.opened()
        trouble = Trouble(failing_since=NOON, held_until=NOON + HOUR, openings=3, told=True)
        await self.provision(store, CRM)
        same: list[dict[str, Any]] = [{"name": "Other"}, {"timeout": 3.0}, {"secret": B}]
        others: list[dict[str, Any]] = [
            {"url": "https://other.example/"},
            {"method": "PUT"},
            {"headers": {"X-Key": "2"}},
            {"transport": "jsonl"},
            {"options": {"path": "x"}},
        ]
        for changes, left in [*((each, True) for each in same), *((each, False) for each in others)]:
            await self.provision(store, CRM)
            await store.save_trouble("crm", trouble)
            found = await self.provision(store, msgspec.structs.replace(CRM, **changes))
            self.assertEqual(found.troubles, {"crm": trouble} if left else {}, changes)

    async def test_settings_that_cannot_be_read_back_are_named(self) -> None:
        store = await self.opened()
        broken = self.sealer().seal('{"id": "hand", "headers": "t0ps3cret"}')
        await self.by_hand(store, Webhook(id="hand"), A)
        await store._do(
            lambda connection: (
                connection.exec_driver_sql("UPDATE webhooks SET settings = ?", (broken,)).rowcount
            )
        )
        with self.assertRaises(StoreError) as caught:
            await self.provision(store)
        self.assertIn("webhook hand", str(caught.exception))
        self.assertNotIn("t0ps3cret", str(caught.exception))
        # The file's own take their place.
        hand = Webhook(id="hand", url="https://hand.example/")
        self.assertEqual((await self.provision(store, hand)).webhooks, (hand,))

    async def test_a_start_that_changes_nothing_writes_nothing(self) -> None:
        store = await self.opened()
        await self.provision(store, CRM, Webhook(id="audit", secret=A))
        before = self.rows("SELECT * FROM webhooks")
        await self.provision(store, CRM, Webhook(id="audit", secret=A))
        self.assertEqual(self.rows("SELECT * FROM webhooks"), before)

    async def test_deliveries_of_a_removed_webhook_fail_the_others_stay(self) -> None:
        self.patch(store_module, "_ORPHAN_LANES", 2)
        self.patch(store_module, "_ORPHAN_CHUNKS_AT_START", 2)
        store = await self.opened()
        await self.provision(store, CRM, Webhook(id="gone"), Webhook(id="went"))
        for webhook in ("crm", "gone", "went"):
            for _ in range(3):
                await self.keep(store, self.made.deliveries(self.made.call(), 2, webhook))
        delivered = self.made.deliveries(self.made.call(), 1, "gone")
        await self.keep(store, delivered)
        await store.record(*self.made.tried(delivered[0], DeliveryStatus.DELIVERED))
        await self.provision(store, CRM)
        count = "SELECT webhook, status, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1, 2"
        # Two chunks of two calls at the start, the rest with the next sweep.
        self.assertEqual(
            self.rows(count),
            [
                ("crm", "pending", 6),
                ("gone", "delivered", 1),
                ("gone", "failed", 6),
                ("went", "pending", 6),
            ],
        )
        self.assertEqual(await store.pending("gone", NOON + DAY, [], 10), [])
        await store.sweep(Retention(), NOON)
        self.assertEqual(self.rows(count)[-1], ("went", "failed", 6))
        self.assertEqual(len(await store.pending("crm", NOON + DAY, [], 10)), 6)


class FileSecretTests(ProvisionCase):
    async def test_a_made_secret_is_kept_and_each_webhook_has_its_own(self) -> None:
        store = await self.opened()
        made = (await self.provision(store, CRM, Webhook(id="audit"))).secrets
        self.assertNotEqual(made["audit"], made["crm"])
        changed = msgspec.structs.replace(CRM, url="https://other.example/")
        found = await self.provision(store, changed, Webhook(id="audit"))
        self.assertEqual(found.secrets, made)
        self.assertEqual(found.webhooks[1].url, changed.url)

    async def test_a_secret_that_the_file_changes_signs_on_for_the_overlap(self) -> None:
        store = await self.opened()
        await self.provision(store, signed(A))
        found = (await self.provision(store, signed(B), at=NOON + HOUR)).secrets["crm"]
        self.assertEqual(
            found, SigningSecrets(current=B, from_file=True, former=(Former(A, NOON + HOUR + DAY),))
        )
        # Starting again does not make it longer, whatever the overlap is by then.
        await store.close()
        store = await self.opened()
        again = await self.provision(store, signed(B), at=NOON + 2 * HOUR, overlap=5)
        self.assertEqual(again.secrets["crm"], found)
        self.assertEqual(self.kept_secrets("crm"), found)
        # What is over is not kept either.
        after = await self.provision(store, signed(B), at=NOON + HOUR + DAY)
        self.assertEqual(after.secrets["crm"], SigningSecrets(current=B, from_file=True))
        self.assertEqual(self.kept_secrets("crm"), after.secrets["crm"])

    async def test_a_secret_that_the_file_gives_takes_the_place_of_a_made_one(self) -> None:
        store = await self.opened()
        made = (await self.provision(store, CRM)).secrets["crm"].current
        found = (await self.provision(store, signed(A))).secrets["crm"]
        self.assertEqual(found, SigningSecrets(current=A, from_file=True, former=(Former(made, NOON + DAY),)))

    async def test_a_secret_taken_out_of_the_file_stays_what_it_was(self) -> None:
        store = await self.opened()
        await self.provision(store, signed(A))
        before = (await self.provision(store, signed(B))).secrets["crm"]
        found = (await self.provision(store, CRM, at=NOON + HOUR)).secrets["crm"]
        self.assertEqual(found, msgspec.structs.replace(before, from_file=False))


class RotateTests(ProvisionCase):
    async def test_a_new_secret_is_made_and_the_former_signs_on(self) -> None:
        store = await self.opened()
        first = (await self.provision(store, CRM)).secrets["crm"].current
        found = await store.rotate_secret("crm", NOON, 600)
        self.assertNotEqual(found.current, first)
        self.assertEqual(len(decode_secret(found.current)), 32)
        self.assertEqual(found.active(NOON), (found.current, first))
        self.assertEqual(found.next_end(NOON), NOON + 600 * SECOND)
        self.assertEqual(self.kept_secrets("crm"), found)
        await store.close()
        store = await self.opened()
        self.assertEqual((await self.provision(store, CRM)).secrets, {"crm": found})

    async def test_only_that_webhooks(self) -> None:
        store = await self.opened()
        before = (await self.provision(store, CRM, Webhook(id="audit"))).secrets
        await store.rotate_secret("crm", NOON, 600)
        found = (await self.provision(store, CRM, Webhook(id="audit"))).secrets
        self.assertEqual(found["audit"], before["audit"])
        self.assertNotEqual(found["crm"], before["crm"])

    async def test_rotating_does_not_enable_it_again(self) -> None:
        store = await self.opened()
        await self.provision(store, CRM)
        await store.disable_webhook("crm", "the receiver answered 410", NOON)
        await store.rotate_secret("crm", NOON, 600)
        self.assertIn("crm", (await self.provision(store, CRM)).disabled)

    async def test_what_the_file_gives_is_the_files_to_change(self) -> None:
        store = await self.opened()
        before = (await self.provision(store, signed(A))).secrets
        with self.assertRaises(ProvisionedError) as caught:
            await store.rotate_secret("crm", NOON, 600)
        self.assertIn("webhooks.crm.secret", str(caught.exception))
        self.assertNotIn(A, str(caught.exception))
        self.assertEqual((await self.provision(store, signed(A))).secrets, before)
        # Out of the file, it is ours.
        await self.provision(store, CRM)
        self.assertEqual((await store.rotate_secret("crm", NOON, 600)).active(NOON)[1], A)

    async def test_no_such_webhook(self) -> None:
        store = await self.opened()
        with self.assertRaises(KeyError):
            await store.rotate_secret("crm", NOON, 600)

    async def test_not_before_it_is_open(self) -> None:
        with self.assertRaises(StoreClosedError):
            await self.store().rotate_secret("crm", NOON, 600)
