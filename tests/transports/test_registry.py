"""Finding transports among good and bad plugin modules, and checking webhooks against them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, Literal

import msgspec
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import cubehook.plugins
from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportPlugin, Outbound, Sent
from cubehook.plugins import cubehook_transports
from cubehook.transports.http import HttpTransport
from cubehook.transports.registry import check_webhook, create, find_transports
from tests.transports.support import context_for

GOOD = """
    import msgspec
    from zope.interface import implementer
    from cubehook.interfaces import ITransportPlugin

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        queue: str

    @implementer(ITransportPlugin)
    class Plugin:
        name = "amqp"
        description = "to a queue"
        options = Options
        def check(self, webhook, options):
            return []
        def create(self, webhook, options, context):
            return object()

    plugin = Plugin()
"""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    queue: str
    depth: int = 1
    mode: Literal["fast", "safe"] = "safe"
    keys: list[int] = []


@implementer(ITransport)
class Transport:
    async def start(self) -> None:
        pass

    async def deliver(self, outbound: Outbound) -> Sent:
        return Sent(delivered=True)

    async def stop(self) -> None:
        pass


@implementer(ITransportPlugin)
class Plugin:
    name = "amqp"
    description = "to a queue"
    options = Options
    made: Any = Transport

    def check(self, webhook: Webhook, options: Any) -> list[tuple[str, str]]:
        return [("options.queue", "a queue that exists")] if options.queue == "none" else []

    def create(self, webhook: Webhook, options: Any, context: Any) -> Any:
        return self.made()


class FindTests(SynchronousTestCase):
    _numbers = itertools.count()

    def _package(self, **modules: str) -> ModuleType:
        """A plugin package of its own, with `modules` beside ours."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        name = f"cubehook_test_plugins_{next(self._numbers)}"
        package = folder / name
        package.mkdir()
        (package / "__init__.py").write_text("")
        for module, text in modules.items():
            (package / f"{module}.py").write_text(dedent(text))
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        imported = __import__(name)
        self.addCleanup(self._forget, name)
        return imported

    def _forget(self, name: str) -> None:
        for module in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[module]

    def test_our_own(self) -> None:
        found, problems = find_transports()
        self.assertEqual((list(found), problems), (_ours(), []))
        self.assertLessEqual({"amqp", "http", "jsonl", "mqtt"}, set(found))
        for plugin in found.values():
            self.assertTrue(plugin.description)
            self.assertTrue(plugin.options.__doc__)

    def test_a_strangers(self) -> None:
        found, problems = find_transports(self._package(stranger=GOOD))
        self.assertEqual((list(found), problems), (["amqp"], []))

    def test_broken_modules_are_named_and_hurt_nobody(self) -> None:
        found, problems = find_transports(
            self._package(
                a_good=GOOD,
                b_syntax="def (:",
                c_import="import no_such_module_anywhere",
                d_raises="\nraise RuntimeError('on\\nimport\\x1b[2J')",
                e_leaves="import sys; sys.exit(3)",
                f_empty="",
                z_good=GOOD.replace('"amqp"', '"kafka"'),
            )
        )
        self.assertEqual(list(found), ["amqp", "kafka"])
        for problem, module, words in zip(
            problems,
            ("b_syntax", "c_import", "d_raises", "e_leaves"),
            (
                "SyntaxError: invalid syntax (b_syntax.py, line 1)",
                "No module named 'no_such_module_anywhere', from line 1 of c_import.py",
                "RuntimeError: on import\\x1b[2J, from line 2 of d_raises.py",
                "SystemExit: 3, from line 1 of e_leaves.py",
            ),
            strict=True,
        ):
            self.assertRegex(problem, rf"\.{module} \(/.*/{module}\.py\) cannot be imported: ")
            self.assertTrue(problem.endswith(words), problem)

    def test_what_a_ctrl_c_interrupts_is_not_a_broken_module(self) -> None:
        with self.assertRaises(KeyboardInterrupt):
            find_transports(self._package(slow="raise KeyboardInterrupt"))

    def test_twisted_finds_the_same(self) -> None:
        package = self._package(first=GOOD, second=GOOD.replace('"amqp"', '"kafka"') + "    other = plugin")
        found, problems = find_transports(package)
        self.assertEqual((list(found), problems), (["amqp", "kafka"], []))
        # Twisted names a plugin once for each of its names.
        self.assertEqual(set(getPlugins(ITransportPlugin, package)), set(found.values()))

    def test_nothing_is_written_beside_the_modules(self) -> None:
        package = self._package(first=GOOD)
        find_transports(package)
        (folder,) = package.__path__
        self.assertEqual({path.name for path in Path(folder).glob("*.cache")}, set())

    def test_an_edited_module_is_seen_however_old_it_claims_to_be(self) -> None:
        """Installers may give files the times they had elsewhere."""
        package = self._package(first=GOOD)
        self.assertEqual(next(iter(getPlugins(ITransportPlugin, package))).name, "amqp")  # leaves a cache
        (folder,) = package.__path__
        module = Path(folder) / "first.py"
        module.write_text(dedent(GOOD.replace("plugin = Plugin()", "renamed = Plugin()")))
        os.utime(module, (1, 1))
        self._forget(f"{package.__name__}.first")
        found, problems = find_transports(package)
        self.assertEqual((list(found), problems), (["amqp"], []))

    def test_a_name_that_is_taken(self) -> None:
        found, problems = find_transports(self._package(first=GOOD, second=GOOD))
        self.assertEqual(list(found), ["amqp"])
        [problem] = problems
        self.assertRegex(problem, r"\.second\.plugin \(/.*\) is not used: ")
        self.assertIn("'amqp' is taken by", problem)
        self.assertIn(".first.plugin", problem)

    def test_ours_keep_their_names(self) -> None:
        ours = "from cubehook.plugins.cubehook_transports import http"
        thief = GOOD.replace('"amqp"', '"http"')
        found, problems = find_transports(self._package(aaa=thief, cubehook_transports=ours))
        self.assertIs(found["http"], find_transports()[0]["http"])
        self.assertEqual(len(problems), 1)

    def test_what_does_not_keep_to_the_interface(self) -> None:
        for old, new in (
            ('name = "amqp"', ""),
            ('name = "amqp"', "name = 7"),
            ('name = "amqp"', "name = 'A Queue'"),
            ('name = "amqp"', "name = property(lambda self: 1 // 0)"),
            ('description = "to a queue"', "description = 'two\\nlines'"),
            ("forbid_unknown_fields=True", "frozen=True"),
            ("queue: str", "queue: threading.Lock"),
            ("queue: str", "queue: pathlib.Path = pathlib.Path()"),
            ('description = "to a queue"', "description = None"),
            ("options = Options", "options = dict"),
            ("def check(self, webhook, options)", "def check(self)"),
            ("def create(", "def make("),
        ):
            text = "    import pathlib, threading" + GOOD.replace(old, new)
            self.assertNotEqual(GOOD.replace(old, new), GOOD)
            found, problems = find_transports(self._package(bad=text))
            self.assertEqual(found, {}, new)
            self.assertEqual(len(problems), 1, new)
            self.assertIn(" is not used: ", problems[0])
            self.assertIn(".bad.plugin (", problems[0])

    def test_a_module_hidden_by_another_of_its_name(self) -> None:
        package = self._package(stranger=GOOD)
        second = Path(self.mktemp()).absolute()
        second.mkdir()
        (second / "stranger.py").write_text(dedent(GOOD.replace('"amqp"', '"kafka"')))
        package.__path__.append(str(second))
        found, problems = find_transports(package)
        self.assertEqual(list(found), ["amqp"])
        [problem] = problems
        self.assertIn(f"{second.resolve()}/stranger.py", problem)
        self.assertIn("stranger.py has the same name, and comes first", problem)

    def test_modules_elsewhere_on_the_path_are_found_and_no_reactor_is_installed(self) -> None:
        root = Path(self.mktemp()).absolute()
        folder = root / "cubehook" / "plugins"
        folder.mkdir(parents=True)
        (folder / "stranger.py").write_text(dedent(GOOD.replace('"amqp"', '"kafka"')))
        script = (
            "import sys; sys.path.append(sys.argv[1]);"
            "from cubehook.transports.registry import find_transports;"
            "found, problems = find_transports();"
            "print(*found, *problems, 'twisted.internet.reactor' in sys.modules)"
        )
        checkout = Path(cubehook.plugins.__path__[0]).parent.parent
        ran = subprocess.run(
            [sys.executable, "-c", script, str(root)],
            capture_output=True,
            text=True,
            cwd=checkout,
            check=True,
        )
        self.assertEqual(ran.stdout.split(), [*sorted([*_ours(), "kafka"]), "False"])


def _ours() -> list[str]:
    """The names of the transports that come with cubehook."""
    return sorted(
        each.name for each in vars(cubehook_transports).values() if ITransportPlugin.providedBy(each)
    )


class CheckTests(SynchronousTestCase):
    plugins = {"amqp": Plugin()}

    def _check(self, **options: object) -> list[tuple[str, str]]:
        return check_webhook(Webhook(id="q", transport="amqp", options=options), self.plugins)

    def test_good_options(self) -> None:
        self.assertEqual(self._check(queue="calls", depth=3), [])

    def test_a_transport_that_is_not_installed(self) -> None:
        [(key, expected)] = check_webhook(Webhook(id="q", transport="kafka"), self.plugins)
        self.assertEqual(key, "transport")
        self.assertIn("amqp", expected)

    def test_options_that_do_not_fit(self) -> None:
        self.assertEqual(self._check(queue="a", depth="x"), [("options.depth", "a whole number")])
        self.assertEqual(self._check(), [("options.queue", "a text, which it must have")])
        self.assertEqual(
            self._check(queue="a", extra=1),
            [("options.extra", "one of the options of amqp: queue, depth, mode, keys")],
        )

    def test_every_problem_is_told_and_no_value_repeated(self) -> None:
        problems = dict(self._check(depth=1.5, mode="s3cret", keys=[1, "s3cret"], extra="s3cret"))
        self.assertEqual(
            set(problems),
            {"options.queue", "options.depth", "options.mode", "options.keys", "options.extra"},
        )
        self.assertEqual(problems["options.mode"], 'one of "fast", "safe"')
        self.assertEqual(
            problems["options.keys"], "a list, each a whole number (at [1]: Expected `int`, got `str`)"
        )
        self.assertNotIn("s3cret", str(problems))

    def test_what_the_struct_itself_minds(self) -> None:
        class Picky(msgspec.Struct, forbid_unknown_fields=True):
            low: int = 0
            high: int = 1

            def __post_init__(self) -> None:
                if self.low >= self.high:
                    raise ValueError("low below high")

        class PickyPlugin(Plugin):
            options: Any = Picky

        webhook = Webhook(id="q", transport="amqp", options={"low": 3})
        self.assertEqual(check_webhook(webhook, {"amqp": PickyPlugin()}), [("options", "low below high")])

    def test_the_plugins_own_check(self) -> None:
        self.assertEqual(self._check(queue="none"), [("options.queue", "a queue that exists")])

    def test_a_check_that_fails_is_told(self) -> None:
        class Failing(Plugin):
            def check(self, webhook: Webhook, options: Any) -> list[tuple[str, str]]:
                raise ZeroDivisionError("oops")

        self._refused(Failing(), "ZeroDivisionError: oops")

    def _refused(self, plugin: Any, words: str) -> None:
        webhook = Webhook(id="q", transport="amqp", options={"queue": "a"})
        [(key, expected)] = check_webhook(webhook, {"amqp": plugin})
        self.assertEqual(key, "transport")
        self.assertIn(words, expected)

    def test_a_check_that_returns_junk_is_told(self) -> None:
        for junk in (None, ["options.queue"], [("options.queue", None)], [("a", "b", "c")], 7):
            plugin: Any = Plugin()
            plugin.check = lambda webhook, options, junk=junk: junk
            self._refused(plugin, "settings that amqp can check; it failed with ")


class CreateTests(SynchronousTestCase):
    def _create(self, plugin: Any, **options: object) -> ITransport:
        webhook = Webhook(id="q", transport="amqp", options=options or {"queue": "a"})
        return create(webhook, {"amqp": plugin}, context_for(webhook))

    def test_makes_the_transport(self) -> None:
        self.assertIsInstance(self._create(Plugin()), Transport)
        webhook = Webhook(id="crm", url="http://crm.example/")
        made = create(webhook, find_transports()[0], context_for(webhook))
        self.assertIsInstance(made, HttpTransport)

    def test_what_keeps_to_no_interface_is_refused(self) -> None:
        plugin = Plugin()
        plugin.made = object
        with self.assertRaises(ValueError) as caught:
            self._create(plugin)
        self.assertIn("webhook q: the transport amqp cannot be made", str(caught.exception))

    def test_a_create_that_fails_is_told(self) -> None:
        plugin: Any = Plugin()

        def fail() -> None:
            raise KeyError("oops")

        plugin.made = fail
        with self.assertRaises(ValueError) as caught:
            self._create(plugin)
        self.assertIn("cannot be made: KeyError: 'oops'", str(caught.exception))

    def test_unknown_transports_and_bad_options(self) -> None:
        with self.assertRaises(ValueError):
            self._create(Plugin(), queue=1)
        webhook = Webhook(id="q", transport="kafka")
        with self.assertRaises(ValueError):
            create(webhook, {}, context_for(webhook))
