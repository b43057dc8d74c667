"""
Judges what a router shows of itself against the cubes there are: text in, findings out.  Pure.

Each finding names what differs and, where a line on the router mends it, that line with those it stands
under, to be typed after `configure terminal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cubehook.config import Cube
from cubehook.doctor.comparing import differences, nearest, nearness, parts
from cubehook.doctor.findings import Finding, failed, ok, warning
from cubehook.doctor.router_config import AREA, Configuration
from cubehook.doctor.router_text import RegistrationShown, RouterText, RunningConfig, read
from cubehook.xcc.client import APPLICATION_NAME, CONNECTION_EVENTS

_MEANT = 0.5
"""How near a URL must be to a cube's to be taken for it, where there are several cubes."""

_NEEDED = frozenset({"CREATED", "ALERTING", "CONNECTED", "DISCONNECTED"})
_HOLDING = frozenset({"AUTHORIZECALL", "ADDRESSANALYZE"})
_GOOD_STATES = frozenset({"STEADY", "KEEPALIVE"})
_NEAR = 4
"""How many cubes are listed by their nearness."""


class Standing(msgspec.Struct, frozen=True):
    """What the running service knows of a cube's registration."""

    registered: bool
    registration_id: str | None = None


def judge(
    config: str | None,
    registrations: str | None,
    cubes: Sequence[Cube],
    standings: Mapping[str, Standing] | None = None,
) -> list[Finding]:
    """
    What is to be said of a router, which one of `cubes` stands for, that showed these texts.

    One is meant to hold its configuration, the other its registrations; each may hold both, and an empty one
    says that there is nothing.  `standings` tell of the cubes' registrations, if the service runs.
    """
    shown = RouterText()
    for text, is_config in ((config, True), (registrations, False)):
        if text is not None:
            _add(shown, read(text), is_config)
    if shown.config is None and shown.registrations is None:
        return [
            failed(
                AREA,
                "The text is neither `show running-config` nor `show wsapi registration all`",
                "Copy what the router prints for one or both of them, the commands included.",
            )
        ]
    if not cubes:
        return [failed(AREA, "There is no cube to compare the router with", "Add [cubes.NAME] first.")]
    return list(_Judge(cubes, standings or {}).of(shown))


def _add(shown: RouterText, more: RouterText, is_config: bool) -> None:
    if more.silent and is_config:
        more.config = RunningConfig()
    elif more.silent:
        more.registrations = []
    shown.config = shown.config or more.config
    if shown.registrations is None:
        shown.registrations = more.registrations


class _Judge:
    def __init__(self, cubes: Sequence[Cube], standings: Mapping[str, Standing]) -> None:
        self._cubes = cubes
        self._standings = standings

    def of(self, shown: RouterText) -> Iterator[Finding]:
        cube = self._meant(shown)
        if cube is None:
            yield self._unknown(shown)
            return
        in_service = self._is_in_service(cube, shown)
        if shown.config is not None:
            yield from Configuration(cube, shown.config, in_service).findings()
        if shown.registrations is not None:
            yield from _registrations(cube, shown.registrations, self._standings.get(cube.id))

    def _urls(self, shown: RouterText) -> list[str]:
        urls = []
        for service in shown.config.services if shown.config else ():
            xcc = service.provider("xcc")
            urls += [url for _, url in xcc.remote_urls] if xcc else []
        for registration in shown.registrations or ():
            if _is_xcc(registration) and registration.app_url:
                urls.append(registration.app_url)
        return urls

    def _hosts(self, shown: RouterText) -> set[str]:
        """The router's own addresses, as far as the text tells."""
        hosts: set[str] = set()
        if shown.config is not None:
            hosts.update(each.source_address for each in shown.config.services if each.source_address)
            hosts.update(address for each in shown.config.interfaces for address in each.addresses)
        hosts.update(parts(each.prov_url).host for each in shown.registrations or () if each.prov_url)
        return {host.lower() for host in hosts if host}

    def _meant(self, shown: RouterText) -> Cube | None:
        """Which cube the router is, None if that cannot be told."""
        if len(self._cubes) == 1:
            return self._cubes[0]
        urls = self._urls(shown)
        for cube in self._cubes:
            if cube.application_url in urls:
                return cube
        hosts = self._hosts(shown)
        here = [cube for cube in self._cubes if parts(cube.provider_url).host in hosts]
        ranked = sorted(
            ((max(nearness(url, cube.application_url) for url in urls), cube) for cube in here or self._cubes)
            if urls
            else ((1.0, cube) for cube in here),
            key=lambda each: (-each[0], each[1].id),
        )
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1] if here or ranked[0][0] >= _MEANT else None

    def _unknown(self, shown: RouterText) -> Finding:
        urls = self._urls(shown)
        lines = []
        if urls:
            for near, cube in nearest(urls[0], self._cubes)[:_NEAR]:
                lines.append(f"{cube.id}: {cube.application_url} ({near:.0%} alike)")
        else:
            lines = [f"{cube.id}: {cube.application_url}" for cube in self._cubes[:_NEAR]]
        more = len(self._cubes) - len(lines)
        if more > 0:
            lines.append(f"and {more} more")
        has = f"its remote-url is {urls[0]}" if urls else "the text has no remote-url of `provider xcc`"
        return failed(
            AREA,
            f"Which cube this router is cannot be told: {has}, and no cube's application_url is near that",
            "Name the cube with --cube. There are:",
            lines=lines,
        )

    def _is_in_service(self, cube: Cube, shown: RouterText) -> bool:
        """The provider is known to take registrations, whatever the configuration does not say."""
        standing = self._standings.get(cube.id)
        if standing is not None and standing.registered:
            return True
        return any(
            _is_xcc(each) and _word(each.prober_state or "") in _GOOD_STATES
            for each in shown.registrations or ()
        )


def _registrations(
    cube: Cube, shown: Sequence[RegistrationShown], standing: Standing | None
) -> Iterator[Finding]:
    ours = cube.application_url
    of_xcc = [each for each in shown if _is_xcc(each)]
    if not of_xcc:
        others = sorted({each.provider for each in shown if each.provider})
        yield failed(
            AREA,
            "The router shows no registration with XCC"
            + (f", only with {', '.join(others)}" if others else ", nor with any other provider"),
            f"Compare its configuration with `cubehook ios {cube.id}`; `debug wsapi xcc all` on the router "
            "tells why a request is refused.",
        )
        return
    mine = [each for each in of_xcc if each.app_url == ours]
    if not mine:
        each = max(of_xcc, key=lambda other: nearness(other.app_url or "", ours))
        differ = "; ".join(differences(each.app_url or "", ours))
        yield failed(
            AREA,
            f"The router has {each.app_url or 'an application without URL'} registered"
            f"{_by(each)}, not cube {cube.id} with {ours}: {differ}",
            "XCC takes one application: end the other one, or give cubehook its URL.",
        )
        return
    for each in mine:
        yield from _registration(cube, each, standing)
    if len(of_xcc) > 1:
        others = sorted({each.app_url or "no URL" for each in of_xcc if each.app_url != ours})
        told = f", also {', '.join(others)}" if others else ""
        yield warning(
            AREA,
            f"The router shows {len(of_xcc)} registrations with XCC{told}: XCC takes one application",
            "What is left of an earlier one goes by itself once its probes fail.",
        )


def _registration(cube: Cube, shown: RegistrationShown, standing: Standing | None) -> Iterator[Finding]:
    state = _word(shown.prober_state or "")
    if state in _GOOD_STATES:
        yield ok(
            AREA, f"The router has cube {cube.id} registered ({shown.id or 'no id'}), its prober is {state}"
        )
    elif shown.prober_state is None:
        yield warning(AREA, f"The router has cube {cube.id} registered, but shows no prober state")
    else:
        yield failed(
            AREA,
            f"The router has cube {cube.id} registered, but its prober is {shown.prober_state}, not STEADY: "
            "it gets no good answers and sends no events",
            f"It must reach {parts(cube.application_url).host}:{parts(cube.application_url).port} from its "
            "source-address, and nothing in between may answer in cubehook's place. `show wsapi http client` "
            "counts what failed.",
        )
    if shown.app_name is not None and shown.app_name != APPLICATION_NAME:
        yield warning(
            AREA,
            f"The application that is registered with this URL calls itself {shown.app_name}, not "
            f"{APPLICATION_NAME}: another one uses the same URL, or did before",
        )
    if standing is not None and shown.id is not None and standing.registration_id not in (None, shown.id):
        yield warning(
            AREA,
            f"The registration here is {standing.registration_id}, the router's is {shown.id}",
            "If that was copied just now, register again: it is done at the next probe, or with the console.",
        )
    if shown.events is not None:
        yield from _events({_word(event) for event in shown.events})


def _events(events: set[str]) -> Iterator[Finding]:
    wanted = [event for event in CONNECTION_EVENTS if _word(event) not in events]
    needed = [event for event in wanted if event in _NEEDED]
    if needed:
        yield failed(
            AREA,
            f"The registration lacks the events {', '.join(needed)} (connEventsFilter), so calls are told in "
            "part or not at all",
            "cubehook asks for them: another application may have registered last. Register again.",
        )
    elif wanted:
        yield warning(
            AREA,
            f"The registration lacks the events {', '.join(wanted)} (connEventsFilter)",
            "Some routers know fewer; transfers and redirections are then told in part.",
        )
    holding = sorted(events & _HOLDING)
    if holding:
        yield warning(
            AREA,
            "The registration has AUTHORIZE_CALL or ADDRESS_ANALYZE: the router holds each call until it is "
            "answered",
            "cubehook does not ask for these: another application may have registered last.",
        )


def _by(shown: RegistrationShown) -> str:
    return f" by {shown.app_name}" if shown.app_name else ""


def _is_xcc(shown: RegistrationShown) -> bool:
    return shown.provider in (None, "xcc")


def _word(text: str) -> str:
    """In capitals, without what routers write between the parts or leave out."""
    return text.upper().replace("_", "").replace(" ", "").replace("-", "")
