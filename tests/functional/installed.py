"""
Wheels of the checkout, and environments that they are installed in, away from it.

A wheel is built from a copy of the sources, so that no stale build folder can stand in for a file that
is left out.  It is installed, without its dependencies, into a fresh environment that borrows those of
the one that runs the tests through a `.pth` file.  `.pth` files in a folder that is itself added by one
are not read, so an editable install of the checkout does not come along.

Everything is made in the folder that trial runs the tests in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "cubehook-syslog"

# What is not to be in the wheel stands beside what is, as in a checkout.
_SOURCES = (
    "cubehook",
    "twisted",
    "bench",
    "docs",
    "examples",
    "tests",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
_MADE_BY_TOOLS = ("__pycache__", "*.pyc", "dropin.cache", "*.egg-info", "_build", "_trial_temp*", "build")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


def run(*command: str, cwd: Path) -> str:
    """Standard output of a command, which must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    if done.returncode != 0:
        raise AssertionError(f"{command} left with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@cache
def sources() -> Path:
    """A copy of what cubehook is built from, and of what lies beside that."""
    folder = Path.cwd() / "sources"
    folder.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*_MADE_BY_TOOLS))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@cache
def cubehook_wheel() -> Path:
    return _wheel_of(sources())


@cache
def example_wheel() -> Path:
    """The example of a third-party transport."""
    return _wheel_of(sources() / EXAMPLE.relative_to(ROOT))


def _wheel_of(project: Path) -> Path:
    folder = Path.cwd() / "wheels" / project.name
    folder.mkdir(parents=True)
    run(
        *_PIP,
        *("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(project)),
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


class Environment:
    """A fresh environment with these wheels; `elsewhere` is a folder where no checkout is near."""

    def __init__(self, name: str, *wheels: Path) -> None:
        self.folder = Path.cwd() / name
        venv.create(self.folder, symlinks=True)
        self.python = str(self.folder / "bin" / "python")
        (self.site_packages,) = (self.folder / "lib").glob("python*/site-packages")
        (self.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.elsewhere = self.folder / "elsewhere"
        self.elsewhere.mkdir()
        self.pip("install", "--no-deps", "--no-index", *map(str, wheels))
        self.command = str(self.folder / "bin" / "cubehook")

    def pip(self, *arguments: str) -> str:
        return run(*_PIP, "--python", self.python, *arguments, cwd=self.folder)

    def run_python(self, program: str, *arguments: str) -> str:
        """What a program prints that must succeed."""
        return run(self.python, "-c", program, *arguments, cwd=self.elsewhere)


# Twisted is borrowed, but not its commands.
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
