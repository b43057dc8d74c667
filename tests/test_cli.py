"""The `cubehook` command: what it prints, where, and its exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated
from unittest import mock

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import cubehook
from cubehook import cli, config_reader
from cubehook.cli import main
from cubehook.transports import registry

ROOT = Path(__file__).parent.parent

GOOD = """
[cubes.hq]
provider_url = "http://192.0.2.1:8090/cisco_xcc"
application_url = "http://192.0.2.20:8090/xcc/hq"
enabled = false
[webhooks.crm]
url = "https://api.example.com/calls?key=hunter2"
states = ["CONNECTED"]
headers = { Authorization = "hunter2" }
secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="
"""


class CliTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def run_main(self, *argv: str) -> tuple[int | str | None, str, str]:
        """Exit status, standard output and standard error."""
        output, errors = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stdout", output), mock.patch.object(sys, "stderr", errors):
            try:
                status: int | str | None = main(argv)
            except SystemExit as exit:  # argparse leaves by it
                status = exit.code
        return status, output.getvalue(), errors.getvalue()

    def write(self, text: str) -> str:
        path = self.folder / "cubehook.toml"
        path.write_text(text, "utf-8")
        return str(path)


class Usage(CliTestCase):
    def test_version(self) -> None:
        self.assertEqual(self.run_main("--version"), (0, f"cubehook {cubehook.__version__}\n", ""))

    def test_help_names_every_command(self) -> None:
        status, output, errors = self.run_main("--help")
        self.assertEqual((status, errors), (0, ""))
        for command in ("check", "enable", "redeliver", "rotate-secret", "simulate", "sink", "transports"):
            self.assertRegex(output, rf"(?m)^  {command} +\w")

    def test_each_command_has_help(self) -> None:
        for command in ("check", "enable", "redeliver", "rotate-secret", "simulate", "sink", "transports"):
            status, output, _ = self.run_main(command, "--help")
            self.assertEqual(status, 0, command)
            self.assertIn("--json", output, command)

    def test_wrong_usage(self) -> None:
        for argv in (
            [],
            ["bogus"],
            ["--bogus"],
            ["check", "--bogus"],
            ["check", "a", "b"],
            ["transports", "x"],
        ):
            status, output, errors = self.run_main(*argv)
            self.assertEqual((status, output), (2, ""), argv)
            self.assertIn("usage: cubehook", errors)

    def test_help_and_version_load_nothing_heavy(self) -> None:
        program = (
            "import sys, cubehook.cli\n"
            "try: cubehook.cli.main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'twisted', 'msgspec', 'treq', 'lxml', 'sqlalchemy'} & set(sys.modules)\n"
            "sys.exit(str(heavy) if heavy else 0)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_an_interrupt_and_a_closed_pipe_end_it_quietly(self) -> None:
        def raising(error: BaseException) -> Callable[[Sequence[str]], int]:
            def run(argv: Sequence[str]) -> int:
                raise error

            return run

        self.patch(cli, "_COMMANDS", {"check": (raising(KeyboardInterrupt()), "")})
        self.assertEqual(self.run_main("check"), (130, "", ""))
        path = self.write(GOOD)
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from cubehook.cli import main; sys.exit(main())",
                "check",
                path,
            ],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
        )
        os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (1, b""))


class Check(CliTestCase):
    def test_a_good_file(self) -> None:
        path = self.write(GOOD)
        status, output, errors = self.run_main("check", path)
        self.assertEqual((status, errors), (0, ""))
        self.assertEqual(
            output,
            f"{path} is valid.\n\n"
            f"state        {self.folder}/var\n"
            "database     sqlite\n"
            "gateways     tcp:8090\n"
            "console      tcp:8080:interface=127.0.0.1\n"
            "cube hq      http://192.0.2.1:8090/cisco_xcc -> http://192.0.2.20:8090/xcc/hq  (disabled)\n"
            "webhook crm  http https://api.example.com/calls: CONNECTED of every cube\n",
        )

    def test_a_good_file_as_json(self) -> None:
        path = self.write(GOOD)
        status, output, errors = self.run_main("check", path, "--json")
        self.assertEqual((status, errors), (0, ""))
        self.assertNotIn("hunter2", output)
        answer = json.loads(output)
        self.assertEqual((answer["valid"], answer["file"]), (True, path))
        runs = answer["runs"]
        self.assertEqual(runs["state_dir"], str(self.folder / "var"))
        self.assertEqual(runs["listen"]["cubes"], ["tcp:8090"])
        self.assertEqual([(cube["id"], cube["enabled"]) for cube in runs["cubes"]], [("hq", False)])
        self.assertEqual(runs["webhooks"][0]["url"], "https://api.example.com/calls")
        self.assertEqual(runs["retention_seconds"], {"calls": 7776000, "deliveries": 2592000})

    def test_what_a_webhook_would_be_sent(self) -> None:
        path = self.write(GOOD)
        status, output, errors = self.run_main("check", path, "--render", "crm")
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(output, r'^CONNECTED\n\{"call_state":"CONNECTED",.*\}\n$')
        status, output, _ = self.run_main("check", path, "--render", "crm", "--json")
        self.assertEqual([("CONNECTED", 0)], [(each["event"], status) for each in json.loads(output)])
        status, output, errors = self.run_main("check", path, "--render", "erp")
        self.assertEqual((status, output), (1, ""))
        self.assertIn("there is no webhook 'erp' in this file", errors)

    def test_an_empty_file(self) -> None:
        status, output, _ = self.run_main("check", self.write("[listen]\nconsole = []"))
        self.assertEqual(status, 0)
        self.assertRegex(output, "(?m)^console +closed$")
        self.assertRegex(output, "(?m)^cubes +none in this file$")

    def test_a_bad_file(self) -> None:
        path = self.write('[log]\nlevel = "loud"\nkeep = 0\n[webhooks.x]\ntransport = "pigeon"')
        status, output, errors = self.run_main("check", path)
        self.assertEqual((status, output), (1, ""))
        self.assertIn(f"{path}: 3 errors\n", errors)
        for key in ("log.level", "log.keep", "webhooks.x.transport"):
            self.assertIn(f"\n  {key}: expected ", errors)

    def test_a_transport_that_cannot_be_used_is_told_with_the_reason(self) -> None:
        self.patch(registry, "find_transports", lambda: ({}, ["owl is not used: it sleeps"]))
        status, _, errors = self.run_main("check", self.write('[webhooks.x]\ntransport = "owl"'))
        self.assertEqual(status, 1)
        self.assertIn("(owl is not used: it sleeps)", errors)

    def test_a_bad_file_as_json(self) -> None:
        status, output, _ = self.run_main("check", "--json", self.write("[log]\nkeep = 0"))
        self.assertEqual(status, 1)
        answer = json.loads(output)
        self.assertFalse(answer["valid"])
        self.assertEqual(
            answer["errors"],
            [{"key": "log.keep", "expected": "a whole number from 1 to 1000", "found": "0"}],
        )

    def test_no_such_file(self) -> None:
        status, _, errors = self.run_main("check", str(self.folder / "none"))
        self.assertEqual(status, 1)
        self.assertIn("No such file", errors)

    def test_the_usual_places(self) -> None:
        path = self.write(GOOD)
        self.patch(config_reader, "PLACES", (Path(path),))
        self.assertEqual(self.run_main("check")[0], 0)
        self.patch(config_reader, "PLACES", (self.folder / "a", self.folder / "b"))
        status, _, errors = self.run_main("check")
        self.assertEqual(status, 2)
        self.assertIn(f"{self.folder}/a nor {self.folder}/b", errors)


class Transports(CliTestCase):
    def test_the_installed_ones(self) -> None:
        status, output, errors = self.run_main("transports")
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(output, "(?m)^http: ")
        self.assertRegex(output, "(?m)^jsonl: ")

    def test_as_json(self) -> None:
        status, output, _ = self.run_main("transports", "--json")
        self.assertEqual(status, 0)
        transports = {transport["name"]: transport for transport in json.loads(output)}
        self.assertLessEqual({"http", "jsonl"}, set(transports))
        for transport in transports.values():
            self.assertIn("$defs", transport["options"])

    def test_a_plugin_with_options_and_a_broken_one(self) -> None:
        class Options(msgspec.Struct):
            """Where pigeons fly."""

            loft: Annotated[str, msgspec.Meta(description="Where it lives.\nNot where it goes.")]
            speed: Annotated[int, msgspec.Meta(ge=1)] = 50
            rings: list[str] = []
            name: int | str | None = None
            breed: Annotated[str, msgspec.Meta(min_length=1, max_length=9)] = "homer"

        class Plugin:
            name = "pigeon"
            description = "By pigeon"
            options = Options

        stub = ModuleType("cubehook.transports.registry")
        stub.find_transports = lambda: ({"pigeon": Plugin()}, ["owl is not used: it sleeps"])  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {"cubehook.transports.registry": stub}):
            status, output, errors = self.run_main("transports")
        self.assertEqual(status, 1)
        self.assertEqual(errors, "cubehook transports: owl is not used: it sleeps\n")
        self.assertEqual(
            output,
            "pigeon: By pigeon\n"
            "    Where pigeons fly.\n\n"
            "    options:\n"
            "      loft: a text, required\n"
            "          Where it lives.\n"
            "          Not where it goes.\n"
            "      speed: a whole number of at least 1, by default 50\n"
            "      rings: a list, each a text, by default []\n"
            "      name: a whole number or a text, optional\n"
            '      breed: a text of 1 to 9 characters, by default "homer"\n',
        )


class Simulator(CliTestCase):
    def test_simulate_and_sink_get_their_arguments(self) -> None:
        given: list[tuple[str, list[str]]] = []

        def command(name: str, status: int) -> Callable[[Sequence[str]], int]:
            def run(argv: Sequence[str]) -> int:
                given.append((name, list(argv)))
                return status

            return run

        commands = ModuleType("cubehook.simulator.commands")
        commands.simulate = command("simulate", 0)  # type: ignore[attr-defined]
        commands.sink = command("sink", 1)  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {"cubehook.simulator.commands": commands}):
            self.assertEqual(self.run_main("simulate", "--rate", "2", "--help")[0], 0)
            self.assertEqual(self.run_main("sink")[0], 1)
        self.assertEqual(given, [("simulate", ["--rate", "2", "--help"]), ("sink", [])])
