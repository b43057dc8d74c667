"""Where calls, events and deliveries are kept: SQLite, one writer, group commit."""

from cubehook.store.errors import ProvisionedError, StoreClosedError, StoreError
from cubehook.store.provisioning import Provisioned
from cubehook.store.store import Store
from cubehook.store.sweeping import Swept

__all__ = ["Provisioned", "ProvisionedError", "Store", "StoreClosedError", "StoreError", "Swept"]
