"""cubehook: call events of Cisco CUBE gateways, as webhooks."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cubehook")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
