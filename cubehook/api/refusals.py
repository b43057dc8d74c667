"""What the service refuses to do with cubes and webhooks, in the API's terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cubehook.api.errors import ConflictError, InvalidError, NotFoundError
from cubehook.changes import MissingError, RefusedError, SettingsError
from cubehook.store.errors import ProvisionedError
from cubehook.text import printable


@contextmanager
def refusals(kind: str, id: str, within: str = "") -> Iterator[None]:
    """
    For work on the `kind` (cube, webhook) of this id.

    `within` is where in the body its settings stand, with a dot at its end.
    """
    try:
        yield
    except MissingError:
        raise NotFoundError(f"There is no {kind} {printable(id)}") from None
    except (RefusedError, ProvisionedError) as error:
        raise ConflictError(str(error)) from None
    except SettingsError as error:
        fields = {f"{within}{key}": words for key, words in error.problems.items()}
        raise InvalidError(f"The {kind} cannot be as it is given", fields=fields) from None
