"""
Calls as scripts: who says what, after how long, about which leg.

Pure: randomness is handed in, and the same seed makes the same calls.  The orders of events are those of
the protocol notes, section 5; causes are Q.850.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from random import Random

import msgspec

from cubehook.xcc import messages as xcc


class Step(msgspec.Struct, frozen=True):
    """One event of a script, `after` seconds after the step before it."""

    after: float
    call: int
    """Which of the script's calls; most have only 0."""
    leg: int
    """Which of the script's connections, over all its calls; 0 is the first caller's."""
    event: xcc.ConnectionEvent
    copies: int = 1
    """How many times it is sent: 2 for a notification that is repeated."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One call, or two that a transfer joins, from the first event to the last."""

    scenario: str
    calling: str | None
    """As the gateway writes it; None when withheld."""
    called: str
    guids: tuple[str, ...]
    """32 upper-case hex digits for each call."""
    outcome: str
    """How the first call ends, in the contract's words."""
    steps: tuple[Step, ...]


def states(script: Script) -> list[tuple[str, ...]]:
    """For each call of `script`, if its events come in order, the states an application tells of it."""
    told = []
    for call in range(1 + max(step.call for step in script.steps)):
        events = {type(step.event) for step in script.steps if step.call == call}
        heard = [xcc.Alerting in events, xcc.Connected in events, xcc.Disconnected in events]
        names = ("ALERTING", "CONNECTED", "DISCONNECTED")
        told.append(tuple(name for name, happened in zip(names, heard, strict=True) if happened))
    return told


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls are made, and how many."""

    mix: Mapping[str, float]
    """Weights of scenarios, by name."""
    seed: int = 1
    rate: float = 1.0
    """Calls a second."""
    regular: bool = False
    """Calls come at equal intervals; otherwise as they do in life (a Poisson process)."""
    count: int | None = None
    """How many calls in all; None for no end."""
    hold_seconds: float = 30.0
    """Mean length of a conversation."""
    max_calls: int | None = None
    """Calls that would make more than this many in progress are not made."""
    duplicates: float = 0.0
    """Share of calls of which one notification is sent twice."""
    swaps: float = 0.0
    """Share of calls of which two neighbouring notifications change places."""
    late: float = 0.0
    """Share of calls whose beginning is not told."""


# Cisco's connection causes (Q.850).
UNALLOCATED = 1
NO_ROUTE = 3
NORMAL = 16
BUSY = 17
NO_ANSWER = 19
REJECTED = 21
NON_SELECTED = 26
OUT_OF_ORDER = 27
TEMPORARY_FAILURE = 41
TIMER_EXPIRED = 102

CALLER = 0
"""The leg of whoever calls first."""

_INTERFACES = ("192.0.2.10", "192.0.2.11", "198.51.100.5")
_ROUTES = ("ITSP", "CUCM", "SITE-B")
_STYLES = ("plus", "plain", "uri")
"""How numbers are written: +12512501663, 12512501663, or a SIP URI."""
_STYLE_WEIGHTS = (72, 24, 4)
_VOICE = xcc.MediaData(type="VOICE", coder_type="g711ulaw", coder_byte="160")


class _Draft:
    """A script being written: the words that scenarios are told in."""

    def __init__(self, random: Random, hold_seconds: float) -> None:
        self.random = random
        self._hold_seconds = hold_seconds
        self._steps: list[Step] = []
        self._after = 0.0
        self._details: dict[int, xcc.ConnDetailData] = {}
        self._connected: dict[int, float] = {}
        self._clock = 0.0
        self._style = random.choices(_STYLES, _STYLE_WEIGHTS)[0]
        self._guids = [_guid(random)]
        self._guid_texts = [_guid_text(self._guids[0], random)]
        self.calling: xcc.AddrData | None = self.address()
        self.called = self.address()
        self.outcome = "answered"

    def script(self, scenario: str) -> Script:
        """What was written, which ends the draft."""
        calling = self.calling.addr if self.calling is not None else None
        return Script(
            scenario=scenario,
            calling=None if calling in (None, "", "anonymous") else calling,
            called=self.called.addr or "",
            guids=tuple(self._guids),
            outcome=self.outcome,
            steps=tuple(self._steps),
        )

    def address(self) -> xcc.AddrData:
        """Somebody's number, in this call's style."""
        number = f"1251{self.random.randrange(2_000_000, 9_999_999)}"
        if self._style == "uri":
            return xcc.AddrData(f"sip:+{number}@{self.random.choice(_INTERFACES)}:5060", "URI")
        return xcc.AddrData(f"+{number}" if self._style == "plus" else number, "E164")

    def use_uris(self) -> None:
        """From now on numbers are SIP URIs."""
        self._style = "uri"
        self.calling, self.called = self.address(), self.address()

    def wait(self, least: float, most: float) -> None:
        """Let some time pass before the next event."""
        self._after += self.random.uniform(least, most)

    def tell(self, leg: int, event: xcc.ConnectionEvent, call: int = 0) -> None:
        """The gateway tells of `event`."""
        self._clock += self._after
        self._steps.append(Step(self._after, call, leg, event))
        self._after = 0.0

    def arrive(self, leg: int = CALLER, call: int = 0, calling: xcc.AddrData | None = None) -> None:
        """A call comes in: by default the script's first caller's."""
        if call == len(self._guids):
            self._guids.append(_guid(self.random))
            self._guid_texts.append(_guid_text(self._guids[call], self.random))
        self._detail(leg, call, "INCOMING", calling or self.calling, self.called)
        self.tell(leg, xcc.Created(self._details[leg]), call)

    def dial(
        self,
        leg: int,
        call: int = 0,
        called: xcc.AddrData | None = None,
        original: xcc.AddrData | None = None,
        calling: xcc.AddrData | None = None,
    ) -> None:
        """The gateway makes an outgoing leg: by default to the number that was called."""
        self.wait(0.02, 0.08)
        self._detail(leg, call, "OUTGOING", calling or self.calling, called or self.called, original)
        self.tell(leg, xcc.Created(self._details[leg]), call)
        self.wait(0.002, 0.01)
        self.tell(leg, xcc.CallDelivery(), call)

    def ring(self, leg: int, call: int = 0, caller: int | None = CALLER) -> None:
        """The telephone at `leg` rings; `caller`, if any, hears it for the first time."""
        self.wait(0.1, 1.2)
        self.tell(leg, xcc.Alerting(), call)
        if caller is not None:
            self.wait(0.002, 0.02)
            self.tell(caller, xcc.Alerting(), call)

    def ring_for(self, least: float, most: float) -> None:
        """The first caller's call, ringing at leg 1 for a while."""
        self.arrive()
        self.dial(1)
        self.ring(1)
        self.wait(least, most)

    def send_on(self, event: type[xcc.Redirected | xcc.Transferred]) -> None:
        """Leg 1 sends the call on to leg 2, which rings for a while; the caller does not hear that."""
        target = self.address()
        self.tell(1, event(target))
        self.dial(2, called=target, original=self.called)
        self.end(1, NORMAL)
        self.ring(2, caller=None)
        self.wait(1, 8)

    def answer(self, leg: int, call: int = 0, caller: int | None = CALLER) -> None:
        """Somebody at `leg` answers; `caller`, if any, is through for the first time."""
        for party in (leg,) if caller is None else (leg, caller):
            self.wait(0.005, 0.03)
            self.tell(party, xcc.Connected(self._details[party]), call)
            self._connected[party] = self._clock

    def talk(self, share: float = 1.0) -> None:
        """A conversation: long ones are rare, none is shorter than half a second."""
        spread = 0.8
        typical = math.log(self._hold_seconds * share) - spread * spread / 2
        self._after += max(0.5 * share, self.random.lognormvariate(typical, spread))

    def end(self, leg: int, cause: int, call: int = 0) -> None:
        """A leg ends, with statistics of its media if there was any."""
        self.wait(0.005, 0.04)
        since = self._connected.get(leg)
        if since is None:
            event = xcc.Disconnected(disc_cause=cause, media_data=_VOICE)
        else:
            statistics, jitter = _statistics(self._clock + self._after - since, self.random)
            event = xcc.Disconnected(
                disc_cause=cause, media_data=_VOICE, stats_data=statistics, jitter_data=jitter
            )
        self.tell(leg, event, call)

    def hang_up(self, *legs: int, call: int = 0) -> None:
        """Both parties' legs end, either first."""
        for leg in self.random.sample(legs, len(legs)):
            self.end(leg, NORMAL, call)

    def detail(self, leg: int) -> xcc.ConnDetailData:
        """What the gateway tells of a leg that was created before."""
        return self._details[leg]

    def _detail(
        self,
        leg: int,
        call: int,
        direction: str,
        calling: xcc.AddrData | None,
        called: xcc.AddrData,
        original: xcc.AddrData | None = None,
    ) -> None:
        self._details[leg] = xcc.ConnDetailData(
            guid=self._guid_texts[call],
            calling_addr_data=calling,
            orig_calling_addr_data=calling,
            called_addr_data=called,
            orig_called_addr_data=original or called,
            conn_intf_type="CONN_SIP",
            media_data=_VOICE,
            conn_intf=self.random.choice(_INTERFACES),
            conn_direction_type=direction,
            route_name=self.random.choice(_ROUTES) if direction == "OUTGOING" else None,
        )


def _guid(random: Random) -> str:
    return f"{random.getrandbits(128):032X}"


def _guid_text(guid: str, random: Random) -> str:
    """A guid in one of the three forms that were seen."""
    words = (guid[:8], guid[8:16], guid[16:24], guid[24:])
    match random.randrange(3):
        case 0:
            return guid
        case 1:
            return " ".join(words)
        case _:
            return "-".join(f"0x{word}" for word in words)


def _statistics(seconds: float, random: Random) -> tuple[dict[str, str], dict[str, str]]:
    """statsData and jitterData of a G.711 conversation: 50 packets of 160 bytes a second."""
    packets = int(seconds * 50)
    lost = int(packets * random.random() * 0.002)
    duration = str(int(seconds * 1000))
    spoken = str(int(seconds * 400))
    statistics = {
        "callDuration": f"PT{int(seconds)}S",
        "TxPacketsCount": str(packets),
        "TxBytesCount": str(packets * 160),
        "TxDurationMSec": duration,
        "TxVoiceDurationMSec": spoken,
        "RxPacketsCount": str(packets - lost),
        "RxBytesCount": str((packets - lost) * 160),
        "RxDurationMSec": duration,
        "RxVoiceDurationMSec": spoken,
    }
    jitter = {
        "roundTripDelayMSec": str(random.randrange(2, 90)),
        "onTimeRvPlayMSec": duration,
        "gapFillWithPredictionMSec": "0",
        "gapFillWithInterpolationMSec": "0",
        "gapFillWithRedundancyMSec": "0",
        "lostPacketsCount": str(lost),
        "earlyPacketsCount": str(random.randrange(3)),
        "latePacketsCount": str(random.randrange(3)),
        "receiveDelayMSec": str(random.randrange(40, 70)),
        "loWaterPlayoutDelayMSec": "40",
        "hiWaterPlayoutDelayMSec": "70",
    }
    return statistics, jitter


# The scenarios.


def _answered(draft: _Draft) -> None:
    draft.ring_for(2, 12)
    draft.answer(1)
    draft.talk()
    draft.hang_up(CALLER, 1)


def _busy(draft: _Draft) -> None:
    draft.outcome = "busy"
    draft.arrive()
    draft.dial(1)
    draft.wait(0.1, 0.8)
    draft.end(1, BUSY)
    draft.end(CALLER, BUSY)


def _rejected(draft: _Draft) -> None:
    """Refused at once by a system, or by somebody who saw who called."""
    draft.outcome = "rejected"
    draft.arrive()
    draft.dial(1)
    if draft.random.random() < 0.5:
        draft.ring(1)
        draft.wait(2, 6)
    draft.end(1, REJECTED)
    draft.end(CALLER, REJECTED)


def _no_answer(draft: _Draft) -> None:
    draft.outcome = "missed"
    draft.ring_for(18, 40)
    cause = draft.random.choice((NO_ANSWER, NO_ANSWER, TIMER_EXPIRED))
    draft.end(1, cause)
    draft.end(CALLER, cause)


def _abandoned(draft: _Draft) -> None:
    draft.outcome = "abandoned"
    draft.ring_for(2, 20)
    draft.end(CALLER, NORMAL)
    draft.end(1, NORMAL)


def _hunt(draft: _Draft) -> None:
    """Dial-peer failover: one destination after another until somebody answers."""
    draft.arrive()
    tried = draft.random.randrange(1, 3)
    for leg in range(1, tried + 1):
        draft.dial(leg, called=draft.address(), original=draft.called)
        if draft.random.random() < 0.5:
            draft.ring(leg, caller=CALLER if leg == 1 else None)
            draft.wait(5, 12)
            draft.end(leg, NO_ANSWER)
        else:
            draft.wait(0.1, 0.6)
            draft.end(leg, draft.random.choice((BUSY, OUT_OF_ORDER, TEMPORARY_FAILURE)))
    last = tried + 1
    draft.dial(last, called=draft.address(), original=draft.called)
    draft.ring(last)
    draft.wait(1, 8)
    draft.answer(last)
    draft.talk()
    draft.hang_up(CALLER, last)


def _simultaneous(draft: _Draft) -> None:
    """Several telephones ring; the first to be picked up has the call."""
    draft.arrive()
    legs = range(1, draft.random.randrange(3, 5))
    for leg in legs:
        draft.dial(leg, called=draft.address(), original=draft.called)
    for leg in legs:
        draft.ring(leg, caller=CALLER if leg == 1 else None)
    draft.wait(1, 8)
    winner = draft.random.choice(legs)
    draft.answer(winner)
    for leg in legs:
        if leg != winner:
            draft.end(leg, NON_SELECTED)
    draft.talk()
    draft.hang_up(CALLER, winner)


def _forwarded(draft: _Draft) -> None:
    """The called telephone forwards: a new leg goes where it says."""
    draft.ring_for(3, 10)
    draft.send_on(xcc.Redirected)
    draft.answer(2)
    draft.talk()
    draft.hang_up(CALLER, 2)


def _blind_transfer(draft: _Draft) -> None:
    """Answered, then sent on to somebody else without asking them."""
    draft.ring_for(2, 10)
    draft.answer(1)
    draft.talk(0.3)
    draft.send_on(xcc.Transferred)
    draft.answer(2, caller=None)
    draft.talk(0.7)
    draft.hang_up(CALLER, 2)


def _attended_transfer(draft: _Draft) -> None:
    """The one called (leg 1) rings a colleague (legs 2 and 3, a call of its own) and joins the two."""
    agent, consultation, colleague = 1, 2, 3
    draft.ring_for(2, 10)
    draft.answer(agent)
    draft.talk(0.3)
    target = draft.address()
    draft.arrive(consultation, call=1, calling=draft.called)
    draft.dial(colleague, call=1, called=target, calling=draft.called)
    draft.ring(colleague, call=1, caller=consultation)
    draft.wait(1, 6)
    draft.answer(colleague, call=1, caller=consultation)
    draft.talk(0.2)
    draft.tell(agent, xcc.Transferred(target))
    draft.tell(colleague, xcc.HandoffLeave(), call=1)
    draft.tell(colleague, xcc.HandoffJoin(draft.detail(colleague)))
    draft.end(consultation, NORMAL, call=1)
    draft.end(agent, NORMAL)
    draft.talk(0.5)
    draft.hang_up(CALLER, colleague)


def _early_media(draft: _Draft) -> None:
    """Connected without ever ringing, as an announcement or a conference bridge is."""
    draft.arrive()
    draft.dial(1)
    draft.wait(0.1, 0.5)
    draft.answer(1)
    draft.talk()
    draft.hang_up(CALLER, 1)


def _withheld(draft: _Draft) -> None:
    draft.calling = draft.random.choice(
        (None, xcc.AddrData("", "E164"), xcc.AddrData("anonymous", "OTHER"), xcc.AddrData("anonymous", "URI"))
    )
    _answered(draft)


def _uri(draft: _Draft) -> None:
    draft.use_uris()
    _answered(draft)


def _failed(draft: _Draft) -> None:
    """No way to the number: no outgoing leg, or one that fails at once."""
    draft.outcome = "failed"
    draft.arrive()
    cause = draft.random.choice((UNALLOCATED, NO_ROUTE, TEMPORARY_FAILURE))
    if draft.random.random() < 0.5:
        draft.dial(1)
        draft.wait(0.05, 0.5)
        draft.end(1, cause)
    draft.end(CALLER, cause)


def _long(draft: _Draft) -> None:
    """A conversation of hours."""
    draft.ring_for(1, 5)
    draft.answer(1)
    draft.wait(2 * 3600, 6 * 3600)
    draft.hang_up(CALLER, 1)


def _from_the_middle(script: Script, random: Random) -> Script:
    """The same call, heard from some event after the first on."""
    first = random.randrange(1, len(script.steps) - 1)
    return msgspec.structs.replace(script, steps=script.steps[first:])


def _with_duplicate(script: Script, random: Random) -> Script:
    """The same call with one notification sent twice."""
    chosen = random.randrange(len(script.steps))
    steps = list(script.steps)
    steps[chosen] = msgspec.structs.replace(steps[chosen], copies=2)
    return msgspec.structs.replace(script, steps=tuple(steps))


def _with_swap(script: Script, random: Random) -> Script:
    """The same call with two neighbouring notifications in the wrong order."""
    first = random.randrange(len(script.steps) - 1)
    steps = list(script.steps)
    one, other = steps[first], steps[first + 1]
    steps[first] = msgspec.structs.replace(other, after=one.after)
    steps[first + 1] = msgspec.structs.replace(one, after=other.after)
    return msgspec.structs.replace(script, steps=tuple(steps))


_SCENARIOS: dict[str, Callable[[_Draft], None]] = {
    "answered": _answered,
    "busy": _busy,
    "rejected": _rejected,
    "no_answer": _no_answer,
    "abandoned": _abandoned,
    "hunt": _hunt,
    "simultaneous": _simultaneous,
    "forwarded": _forwarded,
    "blind_transfer": _blind_transfer,
    "attended_transfer": _attended_transfer,
    "early_media": _early_media,
    "withheld": _withheld,
    "uri": _uri,
    "failed": _failed,
    "long": _long,
}

_TWISTS: dict[str, Callable[[Script, Random], Script]] = {
    "from_the_middle": _from_the_middle,
    "duplicate": _with_duplicate,
    "out_of_order": _with_swap,
}
"""Answered calls that are told badly."""

NAMES = (*_SCENARIOS, *_TWISTS)
"""Every scenario."""

DEFAULT_MIX: dict[str, float] = {
    "answered": 62,
    "no_answer": 10,
    "abandoned": 7,
    "busy": 6,
    "rejected": 2,
    "hunt": 3,
    "simultaneous": 2,
    "forwarded": 2,
    "blind_transfer": 1,
    "attended_transfer": 1,
    "early_media": 1,
    "withheld": 1,
    "uri": 1,
    "failed": 1,
}
"""Roughly an office's day: about 8.5 notifications a call."""


def parse_mix(text: str) -> dict[str, float]:
    """Weights from `answered=70,busy=10`; ValueError says what is wrong."""
    mix = {}
    for part in text.split(","):
        name, equals, weight = part.partition("=")
        name = name.strip()
        if name not in NAMES:
            raise ValueError(f"there is no scenario {name!r}: choose from {', '.join(NAMES)}")
        try:
            mix[name] = float(weight) if equals else 1.0
        except ValueError:
            raise ValueError(f"the weight of {name} is {weight!r}, not a number") from None
        if not 0 <= mix[name] < math.inf:
            raise ValueError(f"the weight of {name} must not be negative or endless")
    if not any(mix.values()):
        raise ValueError("no scenario has a weight above 0")
    return mix


def script(scenario: str, random: Random, hold_seconds: float = 30.0) -> Script:
    """One call of `scenario`; ValueError if there is none of that name."""
    twist = _TWISTS.get(scenario)
    play = _answered if twist else _SCENARIOS.get(scenario)
    if play is None:
        raise ValueError(f"there is no scenario {scenario!r}: choose from {', '.join(NAMES)}")
    draft = _Draft(random, hold_seconds)
    play(draft)
    written = draft.script(scenario)
    return twist(written, random) if twist else written


def scripts(traffic: Traffic) -> Iterator[Script]:
    """The calls of `traffic`, without end, the same for the same seed."""
    random = Random(f"{traffic.seed} calls")  # noqa: S311 - for play
    names = list(traffic.mix)
    weights = list(traffic.mix.values())
    faults = [
        (share, twist)
        for share, twist in (
            (traffic.late, _from_the_middle),
            (traffic.swaps, _with_swap),
            (traffic.duplicates, _with_duplicate),
        )
        if share
    ]
    while True:
        made = script(random.choices(names, weights)[0], random, traffic.hold_seconds)
        for share, twist in faults:
            if random.random() < share and len(made.steps) > 2:
                made = twist(made, random)
        yield made


def arrivals(traffic: Traffic) -> Iterator[float]:
    """When the calls of `traffic` begin, in seconds from its start."""
    random = Random(f"{traffic.seed} arrivals")  # noqa: S311 - for play
    interval = 1 / traffic.rate
    at = 0.0
    while True:
        at += interval if traffic.regular else random.expovariate(traffic.rate)
        yield at
