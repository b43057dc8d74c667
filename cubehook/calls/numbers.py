"""
Telephone numbers as a gateway writes them, made E.164 where that takes no guessing.

A number with a `+` is E.164 already.  One without is completed only when exactly one reading of it
is a number that exists (`phonenumbers` says which do); else it stays as the gateway gave it, as do
extensions, service codes and alphanumeric addresses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

import phonenumbers

from cubehook.xcc.messages import AddrData

_LONGEST = 256
"""Characters of an address that are looked at; no number is longer."""
_CACHED = 4096
"""Addresses whose reading is remembered, some 1.5 MB at most; shared by all cubes."""
_SHORTEST_NATIONAL = 7
"""Digits; what is shorter is an extension or a service code."""
_SHORTEST_INTERNATIONAL = 10
"""Digits, the country code included; what is shorter and has no `+` is a local number."""

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_DIALLED = re.compile(r"\+?[0-9*#]+")
_DIGITS = re.compile(r"[0-9]+")
_SEPARATORS = str.maketrans("", "", " -.()/")
# RFC 3966: where a local number is to be dialled.  It need not be what stands before it, and it is elsewhere
# than the cube's region.
_CONTEXT = re.compile(";phone-context=", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[^a-z0-9]+")

# RFC 3323 and 3GPP TS 24.229 write anonymous@anonymous.invalid and unavailable@unknown.invalid;
# the rest are what trunks send in their place.
_NOBODY = frozenset(
    {
        "anonymous", "anonymouscaller", "blocked", "blockednumber", "calleridunavailable", "nocallerid",
        "notavailable", "numberwithheld", "private", "privatecaller", "privatenumber", "restricted",
        "restrictednumber", "unavailable", "unknown", "unknowncaller", "unknownnumber", "withheld",
        "withheldnumber",
    }
)  # fmt: skip
_NOBODY_HOSTS = ("anonymous.invalid", "unknown.invalid")


class Numbers:
    """
    Reads the addresses of one cube.

    `default_region` (ISO 3166, such as `US`) is where a number without a country code belongs;
    without it such numbers stay as they are.
    """

    def __init__(self, default_region: str | None = None) -> None:
        self._region = default_region.upper() if default_region else None

    def number(self, address: AddrData | None) -> str | None:
        """
        The number in `address`: E.164, or as the gateway gave it (of a URI, what stands before the host).

        None if there is none: no address, an empty one, a URI without a user, or a word
        for nobody such as `anonymous`.
        """
        if address is None or not address.addr:
            return None
        if _E164.fullmatch(address.addr):
            return address.addr
        return _read(address.addr[:_LONGEST], address.type == "E164", self._region)


@lru_cache(maxsize=_CACHED)
def _read(address: str, declared: bool, region: str | None) -> str | None:
    """As `Numbers.number`; `declared` when the gateway says that the address is E.164."""
    address = address.strip()
    user, host = _parts(address)
    if not user or _PUNCTUATION.sub("", user.lower()) in _NOBODY or host.endswith(_NOBODY_HOSTS):
        return None
    dialled = user.translate(_SEPARATORS)
    if _E164.fullmatch(dialled):
        return dialled
    if not _DIALLED.fullmatch(dialled):
        return address
    if len(dialled) < _SHORTEST_NATIONAL or not _DIGITS.fullmatch(dialled):
        return user
    if _CONTEXT.search(address):
        return user
    return _completed(dialled, declared, region) or user


def _parts(address: str) -> tuple[str, str]:
    """User and host of a `sip:`, `sips:` or `tel:` URI or a `user@host`; else the address and nothing."""
    _, bracket, inside = address.partition("<")
    if bracket:
        address = inside.partition(">")[0]
    scheme, colon, rest = address.partition(":")
    match scheme.lower() if colon else "":
        case "tel":
            return unquote(rest.partition(";")[0]).strip(), ""
        case "sip" | "sips":
            user, at, host = rest.partition("@")
            if not at:
                # A host begins with no plus: some leave it out after a number.
                return (unquote(re.split("[:;?]", rest, maxsplit=1)[0]) if rest.startswith("+") else ""), ""
        case _:
            user, at, host = address.partition("@")
            if not at:
                return address, ""
    user = user.partition(";")[0].partition(":")[0]
    return unquote(user).strip(), re.split("[:;?]", host, maxsplit=1)[0].lower()


def _completed(digits: str, declared: bool, region: str | None) -> str | None:
    """
    The E.164 form of `digits`, which lack the `+`; None if it cannot be told.

    Two readings compete: a national number of `region` (with its trunk or international prefix,
    or without), and E.164 whose `+` was left out, which counts only if `declared`.  A number
    in the region's own dialling form is national.  Where both readings are numbers that exist and
    they differ, none is taken; without a region, ten digits that could be North American are such
    a case, for that is how gateways there write national numbers.
    """
    national = _existing(digits, region) if region else None
    if national is not None and region and _dialled_nationally(digits, region):
        return national
    international = None
    if len(digits) >= _SHORTEST_INTERNATIONAL and (declared or national is not None):
        international = _existing(f"+{digits}", None)
    if national is not None:
        return national if international in (None, national) else None
    if region is None and len(digits) == 10 and _existing(digits, "US") is not None:
        return None
    return international


def _dialled_nationally(digits: str, region: str) -> bool:
    """
    Whether `digits` are what a caller in `region` dials for a number of the country.

    True where national numbers need no trunk prefix, and in North America, where it is optional.
    """
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if metadata is None or metadata.country_code == 1 or metadata.national_prefix is None:
        return True
    return digits.startswith(metadata.national_prefix)


def _existing(digits: str, region: str | None) -> str | None:
    """`digits` in E.164 if they are a number that exists, read in `region`."""
    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
