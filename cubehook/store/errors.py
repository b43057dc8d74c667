"""What the store raises, besides `cubehook.interfaces.StoreFullError`."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot do what it was asked; the text says where, why, and what to do."""


class StoreClosedError(StoreError):
    """The store was closed before this could be written."""


class ProvisionedError(StoreError):
    """The configuration file decides what was to be changed; the text says where."""
