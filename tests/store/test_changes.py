"""Cubes and webhooks that are made, changed and removed while the store is open."""

from __future__ import annotations

import msgspec

from cubehook.config import Cube, Webhook
from cubehook.records import Registration, RegistrationState, Trouble
from cubehook.rotation import Former, SigningSecrets
from cubehook.store import ProvisionedError, Store
from tests.store.support import NOON, SECOND
from tests.store.test_provisioning import CRM, DAY, HOUR, HQ, A, B, ProvisionCase

BRANCH = Cube(id="branch", provider_url="http://192.0.2.2/", application_url="http://192.0.2.20/branch")
ERP = Webhook(id="erp", url="https://erp.example/", headers={"X-Key": "t0ps3cret"})
TROUBLE = Trouble(failing_since=NOON, held_until=NOON + HOUR, openings=3, told=True)


class CubeTests(ProvisionCase):
    async def cubes(self, store: Store) -> tuple[Cube, ...]:
        return (await store.provision([HQ], [], at=NOON, overlap=0)).cubes

    async def test_made_changed_and_removed(self) -> None:
        store = await self.opened()
        self.assertEqual(await self.cubes(store), (HQ,))
        await store.put_cube(BRANCH)
        changed = msgspec.structs.replace(BRANCH, enabled=False)
        await store.put_cube(changed)
        self.assertEqual(await self.cubes(store), (changed, HQ))
        await store.delete_cube("branch")
        self.assertEqual(await self.cubes(store), (HQ,))
        with self.assertRaises(KeyError):
            await store.delete_cube("branch")

    async def test_what_the_file_has(self) -> None:
        store = await self.opened()
        await self.cubes(store)
        for change in (store.put_cube(msgspec.structs.replace(HQ, enabled=False)), store.delete_cube("hq")):
            with self.assertRaises(ProvisionedError) as caught:
                await change
            self.assertIn("[cubes.hq]", str(caught.exception))
        self.assertEqual(await self.cubes(store), (HQ,))

    async def test_a_new_one_has_no_registration_of_an_earlier_one(self) -> None:
        store = await self.opened()
        await store.put_cube(BRANCH)
        stood = Registration(
            cube="branch", state=RegistrationState.SILENT, since=NOON, reason="It is silent."
        )
        await store.registration(stood)
        await store.put_cube(msgspec.structs.replace(BRANCH, description="x"))
        self.assertEqual(await store.registrations(), [stood])
        await store.delete_cube("branch")
        await store.put_cube(BRANCH)
        self.assertEqual(await store.registrations(), [])
        self.assertEqual(len(self.rows("SELECT * FROM registration_changes")), 1, "what happened stays")


class WebhookTests(ProvisionCase):
    async def put(self, store: Store, webhook: Webhook, same_receiver: bool = False) -> SigningSecrets:
        kept = await store.put_webhook(webhook, at=NOON, overlap=86_400, same_receiver=same_receiver)
        return kept.secrets

    async def test_made_changed_and_removed(self) -> None:
        store = await self.opened()
        secrets = await self.put(store, ERP)
        self.assertRegex(secrets.current, r"^whsec_")
        changed = msgspec.structs.replace(ERP, method="PUT")
        self.assertEqual(await self.put(store, changed), secrets)
        found = await self.provision(store)
        self.assertEqual((found.webhooks, found.secrets), ((changed,), {"erp": secrets}))
        self.assertNotIn("t0ps3cret", str(self.rows("SELECT * FROM webhooks")))
        await store.delete_webhook("erp")
        self.assertEqual((await self.provision(store)).webhooks, ())
        with self.assertRaises(KeyError):
            await store.delete_webhook("erp")

    async def test_a_secret_of_its_own_and_another_one(self) -> None:
        store = await self.opened()
        secrets = await self.put(store, msgspec.structs.replace(ERP, secret=A))
        self.assertEqual(secrets, SigningSecrets(current=A))
        secrets = await self.put(store, msgspec.structs.replace(ERP, secret=B))
        self.assertEqual(secrets, SigningSecrets(current=B, former=(Former(A, NOON + DAY),)))
        self.assertIsNone((await self.provision(store)).webhooks[0].secret)
        # It is not the file's: it can be rotated.
        self.assertEqual((await store.rotate_secret("erp", NOON + SECOND, 0)).former, ())

    async def test_what_the_file_has(self) -> None:
        store = await self.opened()
        await self.provision(store, CRM)
        for change in (self.put(store, msgspec.structs.replace(CRM, url="")), store.delete_webhook("crm")):
            with self.assertRaises(ProvisionedError) as caught:
                await change
            self.assertIn("[webhooks.crm]", str(caught.exception))
        self.assertEqual((await self.provision(store, CRM)).webhooks, (CRM,))

    async def test_a_change_enables_it_and_only_another_receiver_ends_its_trouble(self) -> None:
        store = await self.opened()
        await self.put(store, ERP)
        for same, left in ((True, TROUBLE), (False, None)):
            await store.disable_webhook("erp", "it said 410", NOON)
            await store.save_trouble("erp", TROUBLE)
            kept = await store.put_webhook(ERP, at=NOON, overlap=0, same_receiver=same)
            self.assertEqual((kept.trouble, kept.new), (left, False))
            found = await self.provision(store)
            self.assertEqual((found.disabled, found.troubles), ({}, {"erp": left} if left else {}))

    async def test_enabled_again_it_tells_of_its_trouble(self) -> None:
        store = await self.opened()
        await self.put(store, ERP)
        self.assertIsNone(await store.enable_webhook("erp"))
        await store.save_trouble("erp", TROUBLE)
        self.assertEqual(await store.enable_webhook("erp"), TROUBLE)
        self.assertIsNone(await store.enable_webhook("nobody"))
