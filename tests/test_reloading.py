"""When the configuration is read again, and what comes of a file that cannot be used; all rooms are fakes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.changes import ReloadError, SettingsError
from cubehook.config import Config, Cube, Listen, Log, Webhook
from cubehook.config_reader import ConfigErrors
from cubehook.config_words import Problem
from cubehook.listeners import ListenError
from cubehook.reloading import LOOK_SECONDS, LOOKS, Reloader
from cubehook.settings_plan import Reloaded
from cubehook.store.errors import StoreError

HQ = Cube(id="hq", provider_url="http://192.0.2.1/", application_url="http://192.0.2.2/")
PORT = Listen(cubes=("tcp:1",))
CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls")


class Rooms:
    """Everything that a reload changes; `done` is what was done, in order."""

    degraded = False
    store_trouble: StoreError | None = None
    cubes_trouble: SettingsError | None = None
    ports_in_use: tuple[str, ...] = ()

    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.done: list[str] = []
        self.while_stored: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def held(self, wanted: Any) -> AsyncIterator[None]:
        if self.cubes_trouble is not None:
            raise self.cubes_trouble
        yield

    def check_provided(self, settings: Config, names: Any, keys: Any) -> None:
        pass

    async def fail_orphans(self) -> None:
        self.done.append("orphans")

    async def provision_again(self, cubes: Any, webhooks: Any, **_: Any) -> None:
        if self.store_trouble is not None:
            raise self.store_trouble
        self.done.append("store")
        self.while_stored()

    async def change(self, listen: Listen) -> None:
        for endpoint in listen.cubes:
            if endpoint in self.ports_in_use:
                raise ListenError("listen.cubes", endpoint, "in use")
        self.done.append(f"listen {' '.join(listen.cubes)}")

    def adopt(self, plan: Any) -> list[str]:
        self.done.append("adopt")
        return ["key.pem is no key"]


class Webhooks(Rooms):
    def provide(self, settings: Config, keys: Any, provisioned: Any) -> None:
        self.settings = settings
        self.done.append("webhooks")


class Cubes:
    def __init__(self, rooms: Rooms) -> None:
        self.held = rooms.held
        self.done = rooms.done

    async def provide(self, cubes: Any) -> None:
        self.done.append("cubes")


class ReloaderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text("x")
        os.utime(self.file, (1, 1))
        self.settings = Config(source=self.file)
        self.rooms = Webhooks(self.settings)
        self.clock = Clock()
        self.reads: list[Deferred[Config]] = []
        self.counted: list[str] = []
        self.told: list[str] = []
        self.reloader = self.made(self.settings)
        self.reloader.begin()

    def made(self, settings: Config) -> Reloader:
        rooms: Any = self.rooms
        cubes: Any = Cubes(rooms)
        reloader = Reloader(
            settings,
            lambda: 7,
            self.clock,
            cubes=cubes,
            webhooks=rooms,
            store=rooms,
            listeners=rooms,
            adopt=self.rooms.adopt,
            count=self.counted.append,
            read=self.read,
        )
        reloader.watchers.append(self)
        return reloader

    def read(self, path: Path) -> Deferred[Config]:
        self.assertEqual(path, self.file)
        self.reads.append(Deferred())
        return self.reads[-1]

    def reloading(self) -> None:
        self.told.append("begun")

    def reloaded(self) -> None:
        self.told.append("over")

    def answer(self, found: Config | Exception) -> None:
        if isinstance(found, Exception):
            self.reads[-1].errback(found)
        else:
            self.reads[-1].callback(found)

    def reload(self, found: Config | Exception) -> Deferred[Reloaded]:
        asked = self.reloader.reload()
        self.answer(found)
        return asked

    def wanted(self, **changes: Any) -> Config:
        return replace(self.rooms.settings, **changes)

    def refused(self, asked: Deferred[Reloaded]) -> ReloadError:
        error: ReloadError = self.failureResultOf(asked, ReloadError).value
        self.assertEqual(self.counted[-1], "refused")
        self.assertFalse(self.reloader.succeeded)
        self.assertIn("nothing was changed", str(error))
        return error


class ReloaderTests(ReloaderCase):
    def test_what_can_fail_is_done_first(self) -> None:
        done = self.successResultOf(self.reload(self.wanted(cubes=(HQ,), listen=PORT, log=Log(keep=1))))
        self.assertEqual(self.rooms.done, ["listen tcp:1", "store", "adopt", "webhooks", "cubes"])
        self.assertEqual((done.cubes.added, done.settings), (("hq",), ("listen.cubes", "log.keep")))
        self.assertEqual(done.warnings, ("key.pem is no key",))
        self.assertEqual((self.counted, self.told), (["changed"], ["begun", "over"]))
        self.rooms.done.clear()
        done = self.successResultOf(self.reload(self.wanted()))
        self.assertEqual((done.changed, self.counted[-1]), (False, "unchanged"))
        self.assertEqual(self.rooms.done, ["adopt", "webhooks"])

    def test_a_bad_file(self) -> None:
        problems = [Problem("a", "x", "y"), Problem("a", "z", "y"), Problem("", "TOML", "noise")]
        error = self.refused(self.reload(ConfigErrors(self.file, problems)))
        self.assertIn("3 errors", error.message)
        self.assertEqual(
            error.problems,
            {"a": "expected x; found y; expected z; found y", "file": "expected TOML; found noise"},
        )
        self.assertEqual(self.rooms.done, [])
        self.assertEqual(self.told, ["begun", "over"])
        self.successResultOf(self.reload(self.wanted()))
        self.assertTrue(self.reloader.succeeded)

    def test_what_goes_not_with_what_was_made_elsewhere(self) -> None:
        self.rooms.cubes_trouble = SettingsError({"cubes.hq.application_url": "taken"})
        error = self.refused(self.reload(self.wanted(cubes=(HQ,))))
        self.assertEqual(error.problems, {"cubes.hq.application_url": "taken"})
        self.assertEqual(self.rooms.done, [])

    def test_a_port_that_cannot_be_opened(self) -> None:
        self.rooms.ports_in_use = ("tcp:1",)
        error = self.refused(self.reload(self.wanted(cubes=(HQ,), listen=PORT)))
        self.assertEqual(list(error.problems), ["listen.cubes"])
        self.assertEqual(self.rooms.done, [])

    def test_ports_are_as_before_if_the_store_cannot_be_written(self) -> None:
        self.rooms.store_trouble = StoreError("the disk is gone")
        asked = self.reload(self.wanted(cubes=(HQ,), listen=PORT))
        self.failureResultOf(asked, StoreError)
        self.assertEqual(self.rooms.done, ["listen tcp:1", "listen tcp:8090"])
        self.assertEqual(self.rooms.settings, self.settings)
        self.assertEqual(self.counted, ["refused"])

    def test_a_store_in_trouble_matters_only_to_what_it_keeps(self) -> None:
        self.rooms.degraded = True
        self.refused(self.reload(self.wanted(cubes=(HQ,))))
        self.successResultOf(self.reload(self.wanted(log=Log(keep=1))))
        self.assertEqual(self.rooms.settings.log.keep, 1)

    def test_a_mistake_of_ours_is_said_to_be_one(self) -> None:
        self.failureResultOf(self.reload(ZeroDivisionError()), ZeroDivisionError)
        self.assertEqual((self.counted, self.told), (["failed"], ["begun", "over"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(self.reload(self.wanted()))

    def test_one_after_the_other(self) -> None:
        first, second = self.reloader.reload(), self.reloader.reload()
        self.assertEqual(len(self.reads), 1)
        self.assertTrue(self.reloader.asked)
        self.answer(self.wanted(log=Log(keep=1)))
        self.successResultOf(first)
        self.assertFalse(self.reloader.asked)
        self.assertEqual(len(self.reads), 2)
        self.answer(self.wanted(log=Log(keep=1)))
        self.assertFalse(self.successResultOf(second).changed)
        self.assertEqual(self.told, ["begun", "over"] * 2)

    def test_whoever_leaves_is_not_waited_for(self) -> None:
        asked = self.reloader.reload()
        _ = asked.addErrback(lambda _: None)
        asked.cancel()
        self.answer(self.wanted(log=Log(keep=1)))
        self.assertEqual(self.rooms.settings.log.keep, 1)

    def test_not_before_there_is_something_to_change_nor_after(self) -> None:
        self.reloader = self.made(self.settings)
        asked, last = self.reloader.reload(), self.reloader.reload()
        self.assertNoResult(asked)
        self.assertEqual(self.reads, [])
        self.reloader.begin()
        self.answer(self.wanted())
        self.successResultOf(asked)
        self.reloader.close()
        self.answer(self.wanted(log=Log(keep=1)))
        self.assertIn("stopping", str(self.failureResultOf(last, ReloadError).value))
        self.assertIn("stopping", str(self.failureResultOf(self.reloader.reload(), ReloadError).value))
        self.assertEqual(self.rooms.settings, self.settings)
        self.assertEqual(self.told, ["begun", "over", "begun"], "who stops is not ready again")

    def test_who_stops_while_it_is_read_changes_nothing(self) -> None:
        asked = self.reloader.reload()
        self.reloader.close()
        self.answer(self.wanted(cubes=(HQ,), listen=PORT))
        self.assertIn("stopping", str(self.refused(asked)))
        self.assertEqual((self.rooms.done, self.rooms.settings), ([], self.settings))

    def test_who_stops_while_it_is_stored_lets_the_next_start_have_it(self) -> None:
        self.rooms.while_stored = self.reloader.close
        asked = self.reload(self.wanted(cubes=(HQ,)))
        self.assertIn("holds when it is started again", str(self.failureResultOf(asked, ReloadError).value))
        self.assertEqual((self.rooms.done, self.rooms.settings), (["store"], self.settings))

    def test_what_is_pending_for_one_that_is_no_more_is_not_for_its_successor(self) -> None:
        self.successResultOf(self.reload(self.wanted(webhooks=(CRM,))))
        self.assertEqual(self.rooms.done, ["orphans", "store", "adopt", "webhooks"])
        self.rooms.done.clear()
        self.successResultOf(self.reload(self.wanted(webhooks=(replace(CRM, name="Other"),))))
        self.assertEqual(self.rooms.done, ["store", "adopt", "webhooks"])

    def test_a_service_that_never_began(self) -> None:
        self.reloader = self.made(self.settings)
        asked = self.reloader.reload()
        self.reloader.close()
        self.failureResultOf(asked, ReloadError)

    def test_without_a_file(self) -> None:
        self.reloader = self.made(Config())
        self.reloader.begin()
        self.assertIn("without a configuration file", str(self.refused(self.reloader.reload())))


class SettlingTests(ReloaderCase):
    """A file that is being written."""

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def test_what_was_written_just_now_is_looked_at_twice(self) -> None:
        self.write("half")
        asked = self.reloader.reload()
        self.assertEqual(self.reads, [])
        self.write("half and half")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.reads, [])
        self.clock.advance(LOOK_SECONDS)
        self.answer(self.wanted())
        self.successResultOf(asked)

    def test_what_changes_while_it_is_read_is_read_again(self) -> None:
        for first in (self.wanted(log=Log(keep=9)), ConfigErrors(self.file, [Problem("", "all", "half")])):
            asked = self.reloader.reload()
            self.write(f"another text {first}")
            self.answer(first)
            self.assertNoResult(asked)
            self.clock.advance(LOOK_SECONDS)
            self.answer(self.wanted())
            self.assertFalse(self.successResultOf(asked).changed)
            os.utime(self.file, (1, 1))

    def test_an_empty_one_is_not_meant(self) -> None:
        self.write("")
        os.utime(self.file, (1, 1))
        self.assertIn("is empty", str(self.refused(self.reload(self.wanted(cubes=())))))

    def test_there_is_an_end_to_waiting(self) -> None:
        asked = self.reloader.reload()
        self.write("xx")
        self.answer(self.wanted())
        for turn in range(LOOKS):
            self.assertNoResult(asked)
            self.write("x" * (turn + 3))
            self.clock.advance(LOOK_SECONDS)
        self.assertIn("is being written to all the time", str(self.refused(asked)))

    def test_one_that_is_gone_is_for_the_reader_to_tell(self) -> None:
        self.file.unlink()
        self.refused(self.reload(ConfigErrors(self.file, [Problem("", "a file", "none")])))
