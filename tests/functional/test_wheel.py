"""
The wheel holds all of cubehook, and works where there is no checkout.

The wheel is built from a copy of the sources, so that no stale build folder can stand in for a file
that is left out.  It is installed, without its dependencies, into a fresh environment that borrows
those of the one that runs the tests through a `.pth` file.  `.pth` files in a folder that is itself
added by one are not read, so an editable install of the checkout does not come along.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from configparser import ConfigParser
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("cubehook", "twisted", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
MADE_BY_PYTHON = ("__pycache__", "*.pyc", "dropin.cache")


def run(*command: str, cwd: Path) -> str:
    """Standard output of a command, which must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    if done.returncode != 0:
        raise AssertionError(f"{command} left with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Installation:
    """A wheel of the checkout in an environment of its own; made once, in trial's temporary folder."""

    def __init__(self) -> None:
        folder = Path.cwd() / "wheel"
        self.sources = folder / "sources"
        self.sources.mkdir(parents=True)
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, self.sources / name, ignore=shutil.ignore_patterns(*MADE_BY_PYTHON)
                )
            else:
                shutil.copy(ROOT / name, self.sources)
        self.files = {
            path.relative_to(self.sources).as_posix()
            for name in ("cubehook", "twisted")
            for path in (self.sources / name).rglob("*")
            if path.is_file()
        }
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
        run(
            *pip,
            *("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(self.sources)),
            cwd=folder,
        )
        (self.wheel,) = folder.glob("*.whl")

        fresh = folder / "fresh"
        venv.create(fresh, symlinks=True)
        self.python = str(fresh / "bin" / "python")
        (site_packages,) = (fresh / "lib").glob("python*/site-packages")
        (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run(*pip, "--python", self.python, "install", "--no-deps", "--no-index", str(self.wheel), cwd=folder)
        self.command = str(fresh / "bin" / "cubehook")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()


installation = cache(Installation)


class Wheel(SynchronousTestCase):
    def setUp(self) -> None:
        self.installation = installation()

    def python(self, program: str, *arguments: str) -> str:
        return run(self.installation.python, "-c", program, *arguments, cwd=self.installation.elsewhere)

    def twistd(self, *arguments: str) -> str:
        # Twisted is borrowed, but not its commands.
        program = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
        return self.python(program, *arguments)

    def test_it_holds_every_file_and_nothing_else(self) -> None:
        with zipfile.ZipFile(self.installation.wheel) as wheel:
            packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        self.assertEqual(packed, self.installation.files)
        self.assertIn("cubehook/py.typed", packed)
        self.assertEqual(
            {name for name in packed if name.startswith("twisted/")}, {"twisted/plugins/cubehook_plugin.py"}
        )

    def test_it_is_the_wheel_that_is_tested(self) -> None:
        where = self.python("import cubehook; print(cubehook.__file__)").strip()
        self.assertTrue(where.startswith(str(Path(self.installation.python).parent.parent)), where)

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
        elsewhere = self.installation.elsewhere
        self.assertRegex(run(self.installation.command, "--version", cwd=elsewhere), r"^cubehook \d")
        transports = run(self.installation.command, "transports", cwd=elsewhere)
        self.assertRegex(transports, "(?m)^http: ")
        (elsewhere / "cubehook.toml").write_text("")
        self.assertIn("valid", run(self.installation.command, "check", "cubehook.toml", cwd=elsewhere))

    def test_its_version_is_that_of_the_sources(self) -> None:
        setup = ConfigParser()
        setup.read(self.installation.sources / "setup.cfg")
        version = setup["metadata"]["version"]
        self.assertEqual(self.python("import cubehook; print(cubehook.__version__)").strip(), version)
