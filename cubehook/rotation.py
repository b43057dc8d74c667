"""
A webhook's signing secrets over time: a new one signs at once, and former ones beside it for a while.

Pure: times are handed in.  A receiver that knows any one of them can verify a delivery.
"""

from __future__ import annotations

import msgspec

from cubehook.events import Micros

MOST_FORMER = 9
"""How many former secrets sign at most: each makes every delivery's signature 48 characters longer."""


class Former(msgspec.Struct, frozen=True):
    """A secret that signs until `until`, and not at that time any more."""

    secret: str
    until: Micros

    def __repr__(self) -> str:
        return f"<Former until {self.until}>"


class SigningSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a webhook's deliveries are signed with, as the store keeps it.

    `from_file`: the configuration file says what `current` is.  `former` are newest first.
    """

    current: str
    from_file: bool = False
    former: tuple[Former, ...] = ()

    def __repr__(self) -> str:
        # A repr ends up in logs and tracebacks.
        return f"<SigningSecrets: 1 and {len(self.former)} former>"

    def active(self, at: Micros) -> tuple[str, ...]:
        """What signs at `at`, newest first; never empty."""
        return self.current, *(former.secret for former in self.former if at < former.until)

    def next_end(self, at: Micros) -> Micros | None:
        """When the next of those that sign at `at` ends, None if none does."""
        return min((former.until for former in self.former if at < former.until), default=None)

    def replaced(self, new: str, at: Micros, overlap: float, *, from_file: bool = False) -> SigningSecrets:
        """
        With `new` in the place of the current one, which goes on signing for `overlap` seconds.

        Earlier ones keep their ends, but sign no longer than that either: an overlap of 0 revokes them all.
        One that comes back is current again, and not former too.  Nothing ends if `new` is the current one.
        """
        kept = [former for former in self.former if at < former.until]
        if new != self.current:
            end = at + int(overlap * 1_000_000)
            former = [
                Former(self.current, end),
                *(Former(each.secret, min(each.until, end)) for each in kept),
            ]
            kept = [each for each in former if each.secret != new and at < each.until][:MOST_FORMER]
        return SigningSecrets(current=new, from_file=from_file, former=tuple(kept))
