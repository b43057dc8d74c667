"""
Which connections are let in: so many in all, so many from one address, and a share kept for those we know.

A connection is *proven* once it has sent a whole request.  Where there is no room, one that is not gives way
to a new one, the oldest first: clients that only hold connections, or send their headers a byte at a time,
keep nobody out, or, if they come by the thousand, none whose address we know.  Those that are proven never
give way.

What all of them hold in memory of bodies has an end too, with a share kept in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from cubehook.text import printable

RESERVED = 4
"""One in so many places is for known addresses alone."""

HELD_MOST = 64 << 20
"""Bytes of large bodies that are held for all connections together."""

GIVING_WAY = 50
"""So many a second give way to strangers: letting in each of a flood costs more than refusing it."""

LOG_SECONDS = 60.0
"""How often it is said, at most, that connections are refused."""


class Place:
    """
    A connection that was let in; `close`, to be set by whom it belongs to, ends it at once.

    `held` is what it holds of a large body, in bytes.
    """

    __slots__ = ("_admission", "_left", "address", "close", "held", "known")

    def __init__(self, admission: Admission, address: str | None, known: bool) -> None:
        self._admission = admission
        self.address = address
        self.known = known
        self.close: Callable[[], object] = lambda: None
        self.held = 0
        self._left = False

    def prove(self) -> None:
        """Keep it, whoever else comes: it has sent a whole request."""
        self._admission.prove(self)

    def hold(self, size: int) -> bool:
        """Hold so many bytes from now on, in place of `held`; False, and nothing changes, without room."""
        return self._admission.hold(self, size)

    def leave(self) -> None:
        """Make room; may be called more than once."""
        if not self._left:
            self._left = True
            self.hold(0)
            self._admission.leave(self)


class Admission:
    """
    Lets in `most` connections, and `most_of_address` from one address.

    Addresses that are `known` find a quarter of the places kept for them.  `counted` hears of every
    connection that is refused or gives way.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        most: int,
        most_of_address: int,
        seconds: Callable[[], float],
        *,
        known: Callable[[str], bool] | None = None,
        counted: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._known = known
        self.limit(most, most_of_address)
        self._counted = counted
        self.connections = 0
        self._strangers = 0
        self._of_address: dict[str, int] = {}
        # In the order they came.
        self._unproven: dict[str, dict[Place, None]] = {}
        self._unproven_strangers: dict[Place, None] = {}
        self._second = self._gave_way = 0
        self._untold = 0
        self._tell_at = 0.0
        self._held = 0
        self._tell_of_bodies_at = 0.0

    def limit(self, most: int, most_of_address: int) -> None:
        """Let in so many from now on; those that are in stay."""
        self._most = most
        self._most_of_address = most_of_address
        self._most_strangers = most if self._known is None else most - most // RESERVED

    def let_in(self, peer: IAddress | None) -> Place | None:
        """A place for a connection from `peer`; None if there is none."""
        address = _address(peer)
        # Whoever comes over a unix socket is on this machine, and all of them look alike.
        known = address is None or (self._known is not None and self._known(address))
        if not self._make_room(address, known):
            self._refused(address)
            return None
        place = Place(self, address, known)
        self.connections += 1
        if not known:
            self._strangers += 1
            self._unproven_strangers[place] = None
        if address is not None:
            self._of_address[address] = self._of_address.get(address, 0) + 1
            self._unproven.setdefault(address, {})[place] = None
        return place

    def _make_room(self, address: str | None, known: bool) -> bool:
        give_way: Iterable[Place]
        own = self._unproven.get(address, {}) if address is not None else {}
        if address is not None and self._of_address.get(address, 0) >= self._most_of_address:
            give_way = own
        elif known and self.connections >= self._most:
            give_way = chain(self._unproven_strangers, own)
        elif not known and (self.connections >= self._most or self._strangers >= self._most_strangers):
            give_way = self._unproven_strangers
        else:
            return True
        place = next(iter(give_way), None)
        if place is None or not (known or self._may_give_way()):
            return False
        place.leave()
        place.close()
        self._refused(place.address)
        return True

    def _may_give_way(self) -> bool:
        second = int(self._seconds())
        if second != self._second:
            self._second, self._gave_way = second, 0
        self._gave_way += 1
        return self._gave_way <= GIVING_WAY

    def hold(self, place: Place, size: int) -> bool:
        """See `Place.hold`; one byte in `RESERVED` is for known addresses alone."""
        more = size - place.held
        most = HELD_MOST if place.known else HELD_MOST - HELD_MOST // RESERVED
        if more > 0 and self._held + more > most:
            self._no_room(place)
            return False
        self._held += more
        place.held = size
        return True

    def _no_room(self, place: Place) -> None:
        now = self._seconds()
        if now < self._tell_of_bodies_at:
            return
        self._tell_of_bodies_at = now + LOG_SECONDS
        self._log.warn(
            "{name}: {held} bytes of large requests are held already, and no more are taken for now; the one "
            "from {address} is answered 503",
            name=self._name,
            held=self._held,
            address=printable(place.address or "a unix socket"),
        )

    def prove(self, place: Place) -> None:
        """See `Place.prove`."""
        self._unproven_strangers.pop(place, None)
        if place.address is not None:
            unproven = self._unproven.get(place.address)
            if unproven is not None:
                unproven.pop(place, None)
                if not unproven:
                    del self._unproven[place.address]

    def leave(self, place: Place) -> None:
        """See `Place.leave`."""
        self.prove(place)
        self.connections -= 1
        self._strangers -= not place.known
        if place.address is not None:
            self._of_address[place.address] -= 1
            if not self._of_address[place.address]:
                del self._of_address[place.address]

    def _refused(self, address: str | None) -> None:
        self._counted()
        self._untold += 1
        now = self._seconds()
        if now < self._tell_at:
            return
        count, self._untold, self._tell_at = self._untold, 0, now + LOG_SECONDS
        self._log.warn(
            "{name}: too many connections; {count} refused or closed since this was last said, the latest "
            "from {address}. {connections} are open, {mine} of them from there; {most} may be in all, "
            "{most_of_address} from one address",
            name=self._name,
            count=count,
            address=printable(address or "a unix socket"),
            connections=self.connections,
            mine=self._of_address.get(address, 0) if address is not None else 0,
            most=self._most,
            most_of_address=self._most_of_address,
        )


def _address(peer: Any) -> str | None:
    host: str | None = getattr(peer, "host", None)
    # An IPv4 client of an IPv6 listener is who it is.
    return host.removeprefix("::ffff:") if host is not None else None
