"""The configuration file's cubes and webhooks, put beside those made elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, delete, func, select, update

from cubehook.config import Cube, Webhook
from cubehook.records import Trouble
from cubehook.store.errors import StoreError
from cubehook.store.schema import PENDING, cubes, deliveries, webhooks
from cubehook.store.sqlite import insert

SECRET_BYTES = 32

T = TypeVar("T", Cube, Webhook)


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """
    All cubes and webhooks there are, the file's and others, by id.

    Every webhook has its secret.  `disabled` tells why, for webhooks whose receiver wanted
    nothing any more; `troubles` how those that were held back stood.
    """

    cubes: tuple[Cube, ...]
    webhooks: tuple[Webhook, ...]
    disabled: dict[str, str]
    troubles: dict[str, Trouble]


def provision(
    connection: Connection,
    wanted_cubes: Sequence[Cube],
    wanted_webhooks: Sequence[Webhook],
    random_bytes: Callable[[int], bytes],
) -> Provisioned:
    """Make the database's provisioned cubes and webhooks the wanted ones; all that there are then."""
    _put_cubes(connection, wanted_cubes)
    _put_webhooks(connection, wanted_webhooks, random_bytes)
    all_webhooks = []
    disabled = {}
    troubles = {}
    for row in connection.execute(select(webhooks).order_by(webhooks.c.id)):
        webhook = _read(row.settings, Webhook, f"webhook {row.id}")
        all_webhooks.append(msgspec.structs.replace(webhook, secret=row.secret))
        if row.disabled_reason is not None:
            disabled[row.id] = row.disabled_reason
        if row.trouble is not None:
            troubles[row.id] = msgspec.json.decode(row.trouble, type=Trouble)
    return Provisioned(
        cubes=tuple(
            _read(row.settings, Cube, f"cube {row.id}")
            for row in connection.execute(select(cubes).order_by(cubes.c.id))
        ),
        webhooks=tuple(all_webhooks),
        disabled=disabled,
        troubles=troubles,
    )


def _put_cubes(connection: Connection, wanted: Sequence[Cube]) -> None:
    ids = [cube.id for cube in wanted]
    connection.execute(delete(cubes).where(cubes.c.provisioned, cubes.c.id.not_in(ids)))
    for cube in wanted:
        _put(connection, cubes, cube.id, {"settings": _text(cube)})


def _put_webhooks(
    connection: Connection, wanted: Sequence[Webhook], random_bytes: Callable[[int], bytes]
) -> None:
    ids = [webhook.id for webhook in wanted]
    connection.execute(delete(webhooks).where(webhooks.c.provisioned, webhooks.c.id.not_in(ids)))
    kept = {row.id: row for row in connection.execute(select(webhooks))}
    for webhook in wanted:
        before = kept.get(webhook.id)
        secret = webhook.secret or (before.secret if before is not None else new_secret(random_bytes))
        settings = msgspec.structs.replace(webhook, secret=None)
        row: dict[str, Any] = {"settings": _text(settings), "secret": secret}
        if before is None or before.secret != secret or not _is(before.settings, settings):
            row |= {"disabled_reason": None, "disabled_at": None, "trouble": None}
        _put(connection, webhooks, webhook.id, row)


def _put(connection: Connection, table: Any, id: str, row: dict[str, Any]) -> None:
    row = {"provisioned": True, **row}
    new = insert(table).values(id=id, **row)
    connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=row))


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """A signing secret as Standard Webhooks writes them."""
    return "whsec_" + base64.b64encode(random_bytes(SECRET_BYTES)).decode()


def _text(settings: Cube | Webhook) -> str:
    return msgspec.json.encode(settings).decode()


def _is(text: str, settings: Webhook) -> bool:
    """Whether `text` holds `settings`: compared as values, so that a new key's default is no change."""
    try:
        return msgspec.json.decode(text, type=Webhook) == settings
    except msgspec.MsgspecError:
        return False


def _read(text: str, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the settings of {name} in the database cannot be read: {error}") from error


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
