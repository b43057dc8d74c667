"""
Notices: what webhooks that ask for it are told of the service itself.  Pure: ids and times are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from cubehook.config import Webhook
from cubehook.events import Event, Micros, Notice, NoticeType, iso
from cubehook.ids import id_text
from cubehook.records import Registration, RegistrationState

Value = str | int | float | bool | None
NextId = Callable[[Micros], int]

_LOST = (RegistrationState.UNREGISTERED, RegistrationState.SILENT, RegistrationState.REJECTED)


def about_cube(type: NoticeType, registration: Registration, at: Micros, next_id: NextId) -> Event:
    """That a cube was registered or lost, and why."""
    cube = registration.cube
    data: dict[str, Value] = {
        "cube": cube,
        "state": registration.state.value,
        "reason": registration.reason,
        "last_error": registration.last_error,
    }
    return _event(type, at, next_id(at), f"cube {cube}", cube, data)


def about_webhook(type: NoticeType, webhook: Webhook, at: Micros, next_id: NextId, **data: Value) -> Event:
    """That something happened to `webhook`, and what else there is to say of it."""
    known: dict[str, Value] = {"webhook": webhook.id, "name": webhook.name or webhook.id}
    return _event(type, at, next_id(at), f"webhook {webhook.id}", "", known | data)


def _event(type: NoticeType, at: Micros, id: int, subject: str, cube: str, data: dict[str, Value]) -> Event:
    # Notices of one subject keep their order like events of one call; no call has so small a number,
    # since theirs begin with a time.  Two subjects of one number would only wait for each other.
    lane = 1 + crc32(subject.encode())
    payload = Notice(type=type, timestamp=iso(at), event_id=id_text(id), data=data)
    return Event(id=id, call=lane, cube=cube, granularity=None, at=at, payload=payload)


class CubeWatch:
    """
    Tells when a cube's registration is worth a notice.

    Passing states between two registrations are not; nor that a cube which never was registered is not.
    """

    def __init__(self) -> None:
        self._up: bool | None = None

    def restore(self, registration: Registration) -> None:
        """Go on from how an earlier run left it."""
        self._up = registration.state is RegistrationState.REGISTERED

    def changed(self, registration: Registration) -> NoticeType | None:
        """The notice that `registration` deserves, None if it is no news."""
        if registration.state is RegistrationState.REGISTERED:
            if not self._up:
                self._up = True
                return NoticeType.CUBE_REGISTERED
        elif registration.state in _LOST and self._up:
            self._up = False
            return NoticeType.CUBE_LOST
        return None
