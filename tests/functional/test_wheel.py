"""The wheel holds all of cubehook and nothing else, and works where there is no checkout."""

from __future__ import annotations

import zipfile
from configparser import ConfigParser
from functools import cache

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.installed import TWISTD, Environment, cubehook_wheel, run, sources


@cache
def environment() -> Environment:
    return Environment("plain", cubehook_wheel())


class Wheel(SynchronousTestCase):
    def setUp(self) -> None:
        self.environment = environment()
        self.python = self.environment.run_python

    def twistd(self, *arguments: str) -> str:
        return self.python(TWISTD, *arguments)

    def test_it_holds_every_file_and_nothing_else(self) -> None:
        with zipfile.ZipFile(cubehook_wheel()) as wheel:
            packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        files = {
            path.relative_to(sources()).as_posix()
            for name in ("cubehook", "twisted")
            for path in (sources() / name).rglob("*")
            if path.is_file()
        }
        self.assertEqual(packed, files)
        self.assertIn("cubehook/py.typed", packed)
        self.assertEqual(
            {name for name in packed if name.startswith("twisted/")}, {"twisted/plugins/cubehook_plugin.py"}
        )

    def test_it_is_the_wheel_that_is_tested(self) -> None:
        where = self.python("import cubehook; print(cubehook.__file__)").strip()
        self.assertTrue(where.startswith(str(self.environment.site_packages)), where)

    def test_twistd_lists_it_once(self) -> None:
        lines = [line for line in self.twistd("--help").splitlines() if "cubehook" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], "^ *cubehook +Call events of Cisco CUBE gateways, as webhooks.$")

    def test_listing_it_imports_no_reactor(self) -> None:
        """A plugin that did would take `--reactor` away from every user of twistd."""
        self.python(
            "import sys\n"
            "from twisted.application.service import IServiceMaker\n"
            "from twisted.plugin import getPlugins\n"
            "assert 'cubehook' in [plugin.tapname for plugin in getPlugins(IServiceMaker)]\n"
            "import twisted.plugins.cubehook_plugin\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
        )

    def test_twistd_cubehook_has_help(self) -> None:
        self.assertIn("--config", self.twistd("cubehook", "--help"))

    def test_the_command_works(self) -> None:
        command, elsewhere = self.environment.command, self.environment.elsewhere
        self.assertRegex(run(command, "--version", cwd=elsewhere), r"^cubehook \d")
        self.assertRegex(run(command, "transports", cwd=elsewhere), "(?m)^http: ")
        (elsewhere / "cubehook.toml").write_text("")
        self.assertIn("valid", run(command, "check", "cubehook.toml", cwd=elsewhere))

    def test_its_version_is_that_of_the_sources(self) -> None:
        setup = ConfigParser()
        setup.read(sources() / "setup.cfg")
        version = setup["metadata"]["version"]
        self.assertEqual(self.python("import cubehook; print(cubehook.__version__)").strip(), version)
