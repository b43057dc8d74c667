"""
Which cubes and webhooks there are: the configuration file's, put beside those made elsewhere, and the
changes of the latter.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, select, update

from cubehook.changes import MissingError
from cubehook.config import Cube, Webhook, receiver
from cubehook.events import Micros
from cubehook.records import Trouble
from cubehook.rotation import SigningSecrets
from cubehook.store.errors import ProvisionedError, StoreError
from cubehook.store.schema import PENDING, cubes, deliveries, registrations, webhooks
from cubehook.store.sealing import Sealer, UnsealError
from cubehook.store.sqlite import insert

SECRET_BYTES = 32

T = TypeVar("T", Cube, Webhook, SigningSecrets)


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """
    All cubes and webhooks there are, the file's and others, by id.

    No webhook has its secret in `webhooks`: `secrets` tells what each signs with, of every one.
    `disabled` tells why, for webhooks whose receiver wanted nothing any more; `troubles` how those that
    were held back stood.  `by_file` has the ids that the file added, changed and removed just now: `cubes`
    and `webhooks`, each by what was done, without what is empty.
    """

    cubes: tuple[Cube, ...]
    webhooks: tuple[Webhook, ...]
    secrets: dict[str, SigningSecrets]
    disabled: dict[str, str]
    troubles: dict[str, Trouble]
    by_file: dict[str, dict[str, list[str]]] = {}


def provision(
    connection: Connection,
    wanted_cubes: Sequence[Cube],
    wanted_webhooks: Sequence[Webhook],
    sealer: Sealer,
    random_bytes: Callable[[int], bytes],
    at: Micros,
    overlap: float,
) -> Provisioned:
    """
    Make the database's provisioned cubes and webhooks the wanted ones; all that there are then.

    A secret that the file gives another goes on signing for `overlap` seconds from `at`.  A webhook that
    changes is enabled if its receiver disabled it; what trouble it had is forgotten if that is another.
    """
    by_file = {
        "cubes": _put_cubes(connection, wanted_cubes),
        "webhooks": _put_webhooks(connection, wanted_webhooks, sealer, random_bytes, at, overlap),
    }
    all_webhooks = []
    secrets = {}
    disabled = {}
    troubles = {}
    for row in connection.execute(select(webhooks).order_by(webhooks.c.id)):
        all_webhooks.append(_settings(row, sealer))
        secrets[row.id] = _secrets(row, sealer)
        if row.disabled_reason is not None:
            disabled[row.id] = row.disabled_reason
        trouble = _trouble(row)
        if trouble is not None:
            troubles[row.id] = trouble
    return Provisioned(
        cubes=tuple(
            _read(row.settings, Cube, f"the settings of cube {row.id}")
            for row in connection.execute(select(cubes).order_by(cubes.c.id))
        ),
        webhooks=tuple(all_webhooks),
        secrets=secrets,
        disabled=disabled,
        troubles=troubles,
        by_file={kind: what for kind, what in by_file.items() if what},
    )


def _put_cubes(connection: Connection, wanted: Sequence[Cube]) -> dict[str, list[str]]:
    kept = {row.id: row for row in connection.execute(select(cubes))}
    ids = [cube.id for cube in wanted]
    connection.execute(delete(cubes).where(cubes.c.provisioned, cubes.c.id.not_in(ids)))
    changed = []
    for cube in wanted:
        row = {"provisioned": True, "settings": _text(cube)}
        new = insert(cubes).values(id=cube.id, **row)
        connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=row))
        if cube.id in kept and not _is_cube(kept[cube.id], cube):
            changed.append(cube.id)
    return _by_file(kept, ids, changed)


def _by_file(kept: dict[str, Any], ids: Sequence[str], changed: list[str]) -> dict[str, list[str]]:
    """What the file, which has `ids`, did to the rows that were `kept` before, `changed` being known."""
    removed = [id for id, row in kept.items() if row.provisioned and id not in ids]
    done = {"added": [id for id in ids if id not in kept], "changed": changed, "removed": removed}
    return {what: those for what, those in done.items() if those}


def _put_webhooks(
    connection: Connection,
    wanted: Sequence[Webhook],
    sealer: Sealer,
    random_bytes: Callable[[int], bytes],
    at: Micros,
    overlap: float,
) -> dict[str, list[str]]:
    kept = {row.id: row for row in connection.execute(select(webhooks))}
    ids = [webhook.id for webhook in wanted]
    connection.execute(delete(webhooks).where(webhooks.c.provisioned, webhooks.c.id.not_in(ids)))
    changed = []
    for webhook in wanted:
        before = kept.get(webhook.id)
        settings = msgspec.structs.replace(webhook, secret=None)
        from_file = webhook.secret is not None
        row: dict[str, Any] = {"provisioned": True}
        if before is None:
            secrets = SigningSecrets(current=webhook.secret or new_secret(random_bytes), from_file=from_file)
            row |= {"settings": sealer.seal(_text(settings)), "secret": sealer.seal(_text(secrets))}
            connection.execute(insert(webhooks).values(id=webhook.id, **row))
            continue
        known = _secrets(before, sealer)
        secrets = known.replaced(webhook.secret or known.current, at, overlap, from_file=from_file)
        # What is sealed differs each time: only what changed is written.
        if secrets != known:
            row["secret"] = sealer.seal(_text(secrets))
        was = _settings_if_read(before, sealer)
        # Compared as values, so that a new key's default is no change.
        if was != settings:
            row["settings"] = sealer.seal(_text(settings))
        if was != settings or secrets.current != known.current:
            row |= {"disabled_reason": None, "disabled_at": None}
            changed.append(webhook.id)
        if was is None or receiver(was) != receiver(settings):
            row["trouble"] = None
        connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(row))
    return _by_file(kept, ids, changed)


def put_cube(connection: Connection, cube: Cube) -> None:
    """Keep a cube that the file does not know, new or changed; ProvisionedError if the file has it."""
    row = _row_of(connection, cubes, cube.id)
    if row is None:
        # What is known of an earlier one of that id is history.
        connection.execute(delete(registrations).where(registrations.c.cube == cube.id))
        connection.execute(insert(cubes).values(id=cube.id, provisioned=False, settings=_text(cube)))
        return
    _see_that_it_is_ours(row, "cubes")
    connection.execute(update(cubes).where(cubes.c.id == cube.id).values(settings=_text(cube)))


def delete_cube(connection: Connection, id: str) -> None:
    """
    Forget a cube; its history stays.

    MissingError if there is none, ProvisionedError if the file has it.
    """
    row = _row_of(connection, cubes, id)
    if row is None:
        raise MissingError(id)
    _see_that_it_is_ours(row, "cubes")
    connection.execute(delete(cubes).where(cubes.c.id == id))


class KeptWebhook(msgspec.Struct, frozen=True):
    """A webhook as it was put: what it signs with now, how it was held back, and whether it is new."""

    secrets: SigningSecrets
    trouble: Trouble | None
    new: bool = False


def put_webhook(
    connection: Connection,
    webhook: Webhook,
    sealer: Sealer,
    random_bytes: Callable[[int], bytes],
    at: Micros,
    overlap: float,
    same_receiver: bool,
) -> KeptWebhook:
    """
    Keep a webhook that the file does not know, new or changed, and enable it if its receiver disabled it.

    It has the secret it is given, else the one it had, else one made here; a former one goes on signing for
    `overlap` seconds from `at`.  What trouble it had is forgotten, unless it is sent to the
    `same_receiver`.  Raises ProvisionedError if the file has it.
    """
    settings = sealer.seal(_text(msgspec.structs.replace(webhook, secret=None)))
    row = _row_of(connection, webhooks, webhook.id)
    if row is None:
        secrets = SigningSecrets(current=webhook.secret or new_secret(random_bytes))
        new = {"settings": settings, "secret": sealer.seal(_text(secrets)), "provisioned": False}
        connection.execute(insert(webhooks).values(id=webhook.id, **new))
        return KeptWebhook(secrets, None, new=True)
    _see_that_it_is_ours(row, "webhooks")
    known = _secrets(row, sealer)
    secrets = known.replaced(webhook.secret or known.current, at, overlap)
    trouble = _trouble(row) if same_receiver else None
    changes: dict[str, Any] = {"settings": settings, "disabled_reason": None, "disabled_at": None}
    if secrets != known:
        changes["secret"] = sealer.seal(_text(secrets))
    if trouble is None:
        changes["trouble"] = None
    connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(changes))
    return KeptWebhook(secrets, trouble)


def delete_webhook(connection: Connection, id: str) -> None:
    """
    Forget a webhook; its history stays, and what is pending for it is for `fail_orphans`.

    MissingError if there is none, ProvisionedError if the file has it.
    """
    row = _row_of(connection, webhooks, id)
    if row is None:
        raise MissingError(id)
    _see_that_it_is_ours(row, "webhooks")
    connection.execute(delete(webhooks).where(webhooks.c.id == id))


def _row_of(connection: Connection, table: Table, id: str) -> Any:
    return connection.execute(select(table).where(table.c.id == id)).one_or_none()


def _see_that_it_is_ours(row: Any, table: str) -> None:
    if row.provisioned:
        raise ProvisionedError(in_the_file(table, row.id))


def in_the_file(table: str, id: str) -> str:
    """Why one that is the configuration file's cannot be changed; `table` is `cubes` or `webhooks`."""
    return (
        f"[{table}.{id}] stands in the configuration file, which decides what it is: change it there, and "
        "run `cubehook reload`"
    )


def rotate(
    connection: Connection,
    id: str,
    sealer: Sealer,
    random_bytes: Callable[[int], bytes],
    at: Micros,
    overlap: float,
) -> SigningSecrets:
    """
    Give a webhook a new secret, made here; what it signs with from `at` on.

    Raises MissingError if there is no such webhook, ProvisionedError if the configuration file gives its
    secret.
    """
    row = connection.execute(select(webhooks).where(webhooks.c.id == id)).one_or_none()
    if row is None:
        raise MissingError(id)
    known = _secrets(row, sealer)
    if known.from_file:
        raise ProvisionedError(
            f"the secret of webhook {id} stands in the configuration file: change webhooks.{id}.secret there "
            "and run `cubehook reload`, and the former one goes on signing for delivery.secret_overlap; or "
            "take the key out of the file, and after the next reload the secret can be rotated here"
        )
    secrets = known.replaced(new_secret(random_bytes), at, overlap)
    connection.execute(update(webhooks).where(webhooks.c.id == id).values(secret=sealer.seal(_text(secrets))))
    return secrets


def enable(connection: Connection, id: str) -> Trouble | None:
    """Forget that a webhook was disabled; how it was held back, None if it was not or is no more."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == id)).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(webhooks).where(webhooks.c.id == id).values(disabled_reason=None, disabled_at=None)
    )
    return _trouble(row)


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """A signing secret as Standard Webhooks writes them."""
    return "whsec_" + base64.b64encode(random_bytes(SECRET_BYTES)).decode()


def _text(value: Cube | Webhook | SigningSecrets) -> str:
    return msgspec.json.encode(value).decode()


def _settings(row: Any, sealer: Sealer) -> Webhook:
    return _read(_unsealed(row.settings, sealer, row.id), Webhook, f"the settings of webhook {row.id}")


def _secrets(row: Any, sealer: Sealer) -> SigningSecrets:
    return _read(_unsealed(row.secret, sealer, row.id), SigningSecrets, f"the secrets of webhook {row.id}")


def _trouble(row: Any) -> Trouble | None:
    return None if row.trouble is None else msgspec.json.decode(row.trouble, type=Trouble)


def _unsealed(text: str, sealer: Sealer, webhook: str) -> str:
    try:
        return sealer.unseal(text)
    except UnsealError as error:
        raise StoreError(
            f"what the database keeps of webhook {webhook} cannot be unsealed: {error}"
        ) from None


def _is_cube(row: Any, cube: Cube) -> bool:
    """Whether `row` holds `cube`."""
    try:
        return _read(row.settings, Cube, "") == cube
    except StoreError:
        return False


def _settings_if_read(row: Any, sealer: Sealer) -> Webhook | None:
    """The settings in `row`, None if they cannot be read."""
    try:
        return _settings(row, sealer)
    except StoreError:
        return None


def _read(text: str, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{name} in the database cannot be read: {error}") from error


def fail_orphans(connection: Connection, lanes: int) -> int:
    """
    Close as failed the pending deliveries of webhooks that are no more, of up to `lanes` calls.

    How many were closed: 0 once there are none.
    """
    orphan = _next_orphan(connection)
    if orphan is None:
        return 0
    of_orphan = deliveries.c.webhook == orphan
    waiting = list(
        connection.scalars(
            select(deliveries.c.call).where(of_orphan, deliveries.c.ready_at.is_not(None)).limit(lanes)
        )
    )
    closed = connection.execute(
        update(deliveries)
        .values(status="failed", ready_at=None)
        .where(deliveries.c.call.in_(waiting), of_orphan, deliveries.c.status == PENDING)
    )
    return closed.rowcount


def _next_orphan(connection: Connection) -> str | None:
    """The first webhook with pending deliveries that is not known, found by leaping through the index."""
    known = set(connection.scalars(select(webhooks.c.id)))
    least = select(func.min(deliveries.c.webhook)).where(deliveries.c.ready_at.is_not(None))
    webhook: str | None = connection.scalar(least)
    while webhook in known:
        webhook = connection.scalar(least.where(deliveries.c.webhook > webhook))
    return webhook
