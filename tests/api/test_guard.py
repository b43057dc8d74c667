"""Who may change things, and what is kept of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from twisted.trial.unittest import TestCase

from cubehook import config
from cubehook.api.errors import ApiError, ConflictError, ForbiddenError, UnavailableError
from cubehook.api.guard import Change, fit_to_keep, guarded
from cubehook.api.operations import Caller, Tagged, operation, operations
from cubehook.api.views import RedeliverRange, TimeGiven
from cubehook.events import CallState
from cubehook.store.errors import StoreError

ADMIN = Caller("Ada")
VIEWER = Caller("Vera", "viewer")


class Thing(msgspec.Struct, frozen=True):
    """A thing."""

    id: str
    size: int = 1


class NewThing(msgspec.Struct, frozen=True, kw_only=True):
    """What a thing is made of."""

    size: int | msgspec.UnsetType = msgspec.UNSET
    secret: config.Secret | None = None
    preview: bool = False


class Part:
    size = 0
    refusal: ApiError | None = None

    @operation("GET", "/things/{thing}", result=Thing)
    async def get_thing(self, caller: Caller, thing: str) -> Thing:
        """One thing."""
        return Thing(thing)

    @operation("GET", "/secrets", result=Thing, access="admin")
    async def get_secret(self, caller: Caller) -> Thing:
        """A secret thing."""
        return Thing("secret")

    @operation("POST", "/things", body=NewThing, result=Thing, changes=lambda body: not body.preview)
    async def make_thing(self, caller: Caller, body: NewThing) -> Tagged:
        """Make a thing."""
        if self.refusal is not None:
            raise self.refusal
        return Tagged(Thing("new"), "1")

    @operation("POST", "/all", result=Thing, recorded=lambda all: {"size": all.size} if all.size else None)
    async def read_all(self, caller: Caller) -> Thing:
        """Read them all."""
        return Thing("all", self.size)

    @operation("POST", "/look", result=Thing, stores=False)
    async def look_up(self, caller: Caller) -> Thing:
        """Look, without the database."""
        return Thing("found")

    @operation("DELETE", "/things/{thing}/of/{owner}", result=Thing)
    async def remove_thing(self, caller: Caller, thing: str, owner: str) -> Thing:
        """Remove a thing."""
        return Thing(thing)


class Guards(TestCase):
    def setUp(self) -> None:
        self.kept: list[Change] = []
        self.trouble: Exception | None = None
        self.part = Part()
        self.away = False
        (self.guarded,) = guarded([self.part], self.keep, lambda: self.away)

    async def keep(self, change: Change) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.kept.append(change)

    def ask(self, name: str) -> Any:
        return getattr(self.guarded, name)

    def test_the_operations_are_the_same(self) -> None:
        self.assertEqual(
            [declared for declared, _ in operations(self.guarded)],
            [declared for declared, _ in operations(self.part)],
        )

    async def test_what_was_made_is_kept_without_its_secrets(self) -> None:
        made = await self.ask("make_thing")(ADMIN, body=NewThing(size=3, secret="hunter2"))
        self.assertEqual(made, Tagged(Thing("new"), "1"))
        self.assertEqual(
            self.kept,
            [Change(who="Ada", action="make_thing", subject="new", detail={"size": 3, "secret": "***"})],
        )

    async def test_what_is_named_by_the_path(self) -> None:
        await self.ask("remove_thing")(ADMIN, thing="a\nb", owner="c")
        self.assertEqual(
            self.kept, [Change(who="Ada", action="remove_thing", subject="a\\x0ab c", detail={})]
        )

    async def test_looking_and_trying_change_nothing(self) -> None:
        await self.ask("get_thing")(VIEWER, thing="a")
        await self.ask("make_thing")(ADMIN, body=NewThing(preview=True))
        self.assertEqual(self.kept, [])

    async def test_what_only_the_result_tells(self) -> None:
        await self.ask("read_all")(ADMIN)
        self.assertEqual(self.kept, [])
        self.part.size = 7
        await self.ask("read_all")(ADMIN)
        self.assertEqual(self.kept, [Change(who="Ada", action="read_all", subject="all", detail={"size": 7})])
        with self.assertRaises(ForbiddenError):
            await self.ask("read_all")(VIEWER)

    async def test_without_a_database_that_can_be_written(self) -> None:
        self.away = True
        self.part.refusal = ConflictError("it was asked all the same")
        with self.assertRaises(UnavailableError) as caught:
            await self.ask("make_thing")(ADMIN, body=NewThing())
        self.assertEqual(caught.exception.headers, {"Retry-After": "10"})
        self.assertEqual(self.kept, [])
        self.part.refusal = None
        await self.ask("make_thing")(ADMIN, body=NewThing(preview=True))
        await self.ask("get_thing")(VIEWER, thing="a")
        await self.ask("look_up")(ADMIN)
        self.assertEqual([each.action for each in self.kept], ["look_up"])

    async def test_what_failed_is_no_change(self) -> None:
        self.part.refusal = ConflictError("no")
        with self.assertRaises(ConflictError):
            await self.ask("make_thing")(ADMIN, body=NewThing())
        self.assertEqual(self.kept, [])

    async def test_viewers_look(self) -> None:
        for name, arguments in (
            ("make_thing", {"body": NewThing()}),
            ("remove_thing", {"thing": "a", "owner": "b"}),
            ("get_secret", {}),
        ):
            with self.assertRaises(ForbiddenError):
                await self.ask(name)(VIEWER, **arguments)
        self.assertEqual(self.kept, [])

    async def test_what_is_done_is_done_though_it_cannot_be_kept(self) -> None:
        self.trouble = StoreError("the disk is full")
        self.assertEqual((await self.ask("remove_thing")(ADMIN, thing="a", owner="b")).id, "a")


class Inner(msgspec.Struct, frozen=True):
    """A part."""

    secret: config.Secret
    since: Annotated[TimeGiven | None, msgspec.Meta(description="when")] = None


class Fitness(TestCase):
    def test_a_webhook(self) -> None:
        webhook = config.Webhook(
            id="crm",
            url="https://user:hunter2@crm.example/hunter2hunter2hunter2/x?token=hunter2",
            headers={"Authorization": "hunter2"},
            secret="hunter2",
            options={"password": "hunter2", "tls": {"key": "hunter2"}},
            retry=(1.0, 2.0),
            template="x" * 1000,
            breaker=config.Breaker(failures=3),
        )
        kept = fit_to_keep(webhook)
        self.assertNotIn("hunter2", str(kept))
        self.assertEqual(
            {name: value for name, value in kept.items() if name not in ("template", "url")},
            {
                "id": "crm",
                "headers": {"Authorization": "***"},
                "secret": "***",
                "options": {"password": "***", "tls": "***"},
                "retry": [1.0, 2.0],
                "breaker": {"failures": 3},
            },
        )
        self.assertEqual(len(kept["template"]), 503)
        self.assertIn("crm.example", kept["url"])

    def test_times_are_shown_as_times(self) -> None:
        self.assertEqual(
            fit_to_keep(RedeliverRange(since=1_732_377_816_200_940)), {"since": "2024-11-23T16:03:36.200940Z"}
        )
        self.assertEqual(
            fit_to_keep(Inner("x", 1_732_377_816_200_940)),
            {"secret": "***", "since": "2024-11-23T16:03:36.200940Z"},
        )

    def test_it_can_be_written_as_json(self) -> None:
        kept = fit_to_keep(config.Webhook(id="crm", states=(CallState.ALERTING,)))
        self.assertEqual(
            msgspec.json.decode(msgspec.json.encode(kept)), {"id": "crm", "states": ["ALERTING"]}
        )
