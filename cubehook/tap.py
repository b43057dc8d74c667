"""
`twistd cubehook`: its options, and the service they make.

`makeService` runs before `twistd` forks, so it reads the configuration and opens nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from cubehook import __version__
from cubehook.config_reader import ConfigErrors, defaults, find, load
from cubehook.steady import make_steady


class Options(usage.Options):
    """Command line of `twistd cubehook`."""

    synopsis = "[options]"
    longdesc = (
        "Registers with Cisco CUBE gateways over XCC and turns their calls into JSON webhooks. "
        "Without --config it reads ./cubehook.toml, else /etc/cubehook/cubehook.toml, else uses defaults."
    )
    optParameters = [["config", "c", None, "The configuration file (TOML)."]]
    optFlags = [
        [
            "demo",
            None,
            "Run with a simulated cube that makes calls and a receiver, on loopback, in a throw-away folder.",
        ]
    ]

    def opt_version(self) -> None:
        """Print cubehook's version and exit."""
        print(f"cubehook {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read the configuration; UsageError with every error in it at once."""
        if self["demo"]:
            if self["config"] is not None:
                raise usage.UsageError("--demo brings its own configuration: leave out --config")
            return
        # An empty name is a mistake (a variable that is not set), not a wish for the usual places.
        path = find() if self["config"] is None else Path(self["config"])
        try:
            self.settings = load(path) if path else defaults(Path.cwd())
        except ConfigErrors as errors:
            # twistd would print its usage in front of these, and they are what matters.
            raise SystemExit(f"cubehook: {errors}") from None


def makeService(options: Options) -> IService:
    """The whole service, wired; it opens its files and ports when it is started."""
    from twisted.internet import reactor

    make_steady(reactor)
    if options["demo"]:
        from cubehook.simulator.demo import DemoService

        return DemoService(Path(tempfile.mkdtemp(prefix="cubehook-demo-")), reactor)
    from cubehook.operations.systemd import notifier
    from cubehook.service import CubehookService

    return CubehookService(options.settings, reactor, notifier=notifier(os.environ, os.getpid()))
