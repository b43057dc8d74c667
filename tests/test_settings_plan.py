from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import (
    Breaker,
    Config,
    Cube,
    Delivery,
    Egress,
    Listen,
    Log,
    Manhole,
    Retention,
    Webhook,
)
from cubehook.settings_plan import INHERITED, LIVE, Names, inherits, plan

IDS = st.sampled_from(("a", "b", "c", "d"))
URLS = st.sampled_from(("http://192.0.2.1/x", "http://192.0.2.2/x"))
ENDPOINTS = st.lists(st.sampled_from(("tcp:1", "tcp:2", "tcp:3")), min_size=1, unique=True).map(tuple)
PATHS = st.sampled_from((Path("/one"), Path("/two")))


def named(kind: Any, **values: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    each = st.builds(kind, id=IDS, **values)
    return st.lists(each, unique_by=lambda one: str(one.id)).map(tuple)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


CONFIGS = st.builds(
    Config,
    source=st.just(Path("/etc/cubehook.toml")),
    state_dir=PATHS,
    database=st.sampled_from(("sqlite", "sqlite ")),
    listen=st.builds(Listen, cubes=ENDPOINTS, console=ENDPOINTS, max_connections=st.integers(8, 10)),
    log=st.builds(Log, level=st.sampled_from(("info", "debug")), keep=st.integers(1, 3)),
    cubes=named(Cube, provider_url=URLS, application_url=URLS, description=st.sampled_from(("", "x"))),
    webhooks=named(Webhook, url=URLS, timeout=maybe(st.just(3.0)), secret=maybe(st.just("whsec_x"))),
    delivery=st.builds(Delivery, timeout=st.sampled_from((1.0, 2.0)), jitter=st.sampled_from((0.1, 0.2))),
    egress=st.builds(Egress, allow=st.sampled_from(((), ("127.0.0.0/8",)))),
    manhole=st.builds(
        Manhole,
        ssh=maybe(st.sampled_from(("tcp:7", "tcp:8"))),
        authorized_keys=PATHS,
        telnet=maybe(st.just("unix:/x")),
        password_file=PATHS,
    ),
    retention=st.builds(Retention, calls=st.sampled_from((1, 2))),
)


def by_id(things: Any) -> dict[str, Any]:
    return {each.id: each for each in things}


def at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


class PlanTests(SynchronousTestCase):
    @settings(max_examples=30, deadline=None)
    @given(CONFIGS, CONFIGS)
    def test_what_holds_then_is_what_was_wanted_but_for_what_needs_a_restart(
        self, running: Config, wanted: Config
    ) -> None:
        found = plan(running, wanted)
        for field in fields(Config):
            if field.name in ("cubes", "webhooks") or field.name not in LIVE:
                continue
            for each in fields(getattr(wanted, field.name)):
                key = f"{field.name}.{each.name}"
                source = running if key in found.restart else wanted
                self.assertEqual(at(found.settings, key), at(source, key), key)
                self.assertEqual(
                    at(running, key) != at(wanted, key), key in (*found.keys, *found.restart), key
                )
        self.assertEqual((found.settings.cubes, found.settings.webhooks), (wanted.cubes, wanted.webhooks))
        self.assertEqual(found.settings.state_dir, running.state_dir)
        self.assertEqual(set(found.keys) & set(found.restart), set())

    @settings(max_examples=30, deadline=None)
    @given(CONFIGS, CONFIGS)
    def test_once_carried_out_nothing_is_left_but_what_needs_a_restart(
        self, running: Config, wanted: Config
    ) -> None:
        found = plan(running, wanted)
        again = plan(found.settings, wanted)
        self.assertEqual((again.cubes, again.webhooks, again.keys), (Names(), Names(), ()))
        self.assertEqual(again.restart, found.restart)
        self.assertFalse(again.told().changed)

    @settings(max_examples=30, deadline=None)
    @given(CONFIGS, CONFIGS)
    def test_the_names_lead_from_the_one_to_the_other(self, running: Config, wanted: Config) -> None:
        found = plan(running, wanted)
        for names, kind in ((found.cubes, "cubes"), (found.webhooks, "webhooks")):
            before, after = by_id(getattr(running, kind)), by_id(getattr(wanted, kind))
            made = {id: each for id, each in before.items() if id not in names.removed}
            self.assertFalse(set(names.added) & set(made))
            self.assertTrue(set(names.changed) <= set(made))
            made |= {id: after[id] for id in (*names.added, *names.changed)}
            self.assertEqual(made, after)
            for id in set(before) & set(after) - set(names.changed):
                self.assertEqual(before[id], after[id])

    @settings(max_examples=30, deadline=None)
    @given(CONFIGS)
    def test_the_same_changes_nothing(self, config: Config) -> None:
        told = plan(config, config).told()
        self.assertEqual((told.changed, told.needs_restart, told.words()), (False, (), []))

    def test_every_key_of_a_file_is_live_or_said_to_need_a_restart(self) -> None:
        known = {field.name for field in fields(Config)}
        self.assertEqual(known - set(LIVE), {"source", "state_dir", "database", "cubes", "webhooks"})
        self.assertEqual(set(LIVE) - known, set())
        for section, keys in LIVE.items():
            self.assertLessEqual(keys or set(), {field.name for field in fields(type(at(Config(), section)))})

    def test_a_door_that_is_open_keeps_the_file_that_it_needs(self) -> None:
        running = Config(manhole=Manhole(ssh="tcp:7", authorized_keys=Path("/keys")))
        found = plan(running, Config())
        self.assertEqual(found.settings.manhole, running.manhole)
        self.assertEqual((found.keys, found.restart), ((), ("manhole.ssh", "manhole.authorized_keys")))
        moved = replace(running, manhole=replace(running.manhole, authorized_keys=Path("/others")))
        found = plan(running, moved)
        self.assertEqual((found.keys, found.restart), (("manhole.authorized_keys",), ()))
        self.assertEqual(found.settings, moved)

    def test_words(self) -> None:
        running = Config(cubes=(Cube(id="hq", provider_url="http://a/", application_url="http://b/"),))
        wanted = Config(
            state_dir=Path("/else"),
            webhooks=(Webhook(id="crm"), Webhook(id="log")),
            log=Log(level="debug"),
            manhole=Manhole(ssh="tcp:22", authorized_keys=Path("/keys")),
        )
        told = plan(running, wanted).told()
        self.assertEqual(
            told.words(),
            [
                "cube removed: hq",
                "webhooks added: crm, log",
                "settings changed: log.level, manhole.authorized_keys",
            ],
        )
        self.assertEqual(told.warning_words(), ["takes effect only at a restart: state_dir, manhole.ssh"])
        self.assertEqual(plan(running, running).told(["x"]).warning_words(), ["x"])


class InheritTests(SynchronousTestCase):
    def test_defaults_matter_to_those_that_have_no_value_of_their_own(self) -> None:
        own = {
            "timeout": 1.0,
            "retry": (1.0,),
            "jitter": 0.1,
            "concurrency": 1,
            "breaker": Breaker(),
            "disable_after": 0,
        }
        for key in INHERITED:
            self.assertTrue(inherits(Webhook(id="crm"), [f"delivery.{key}"]), key)
            one = Webhook(id="crm", **{key: own[key]})  # type: ignore[arg-type]
            self.assertFalse(inherits(one, [f"delivery.{key}"]), key)
            others = [f"delivery.{each}" for each in INHERITED if each != key]
            self.assertTrue(inherits(one, others), key)

    def test_what_else_matters(self) -> None:
        hook = Webhook(id="crm")
        self.assertTrue(inherits(hook, ["egress.proxy"]))
        self.assertFalse(inherits(hook, ["delivery.secret_overlap", "log.level", "listen.cubes"]))

    def test_nothing_of_delivery_is_forgotten(self) -> None:
        known = {field.name for field in fields(Delivery)}
        self.assertEqual(known - set(INHERITED), {"secret_overlap"})
        self.assertLessEqual(set(INHERITED), {field.name for field in fields(Webhook)})
