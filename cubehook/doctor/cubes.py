"""Cubes: whether their gateways answer, whether their application URLs lead here, and how they stand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from twisted.internet.error import DNSLookupError

from cubehook.api.cubes import Cube as CubeView
from cubehook.config import Cube
from cubehook.console.advice import advice, of_the_error
from cubehook.control import ControlError
from cubehook.doctor import ports
from cubehook.doctor.certificates import authorities_findings, certificate_findings, identity_findings
from cubehook.doctor.clock import opinion
from cubehook.doctor.findings import Finding, failed, ok, skipped, warning
from cubehook.doctor.listeners import WANTS_CERTIFICATES
from cubehook.doctor.router import Standing
from cubehook.doctor.subject import Subject
from cubehook.doctor.visiting import Visit, VisitError, anywhere, question, visit, way
from cubehook.net.certificates import TlsFileError
from cubehook.net.lookup import Addresses
from cubehook.records import ErrorClass
from cubehook.xcc.client import GatewayTrust

_SCHEMES = "https in application_url needs an endpoint with privateKey in listen.cubes, http one without."


def standings(subject: Subject) -> dict[str, Standing]:
    """How the cubes' registrations stand, if the service runs."""
    if subject.running is None:
        return {}
    views = {id: view["registration"] for id, view in subject.running.cubes.items()}
    return {
        id: Standing(view["state"] == "registered", view["registration_id"]) for id, view in views.items()
    }


async def cube_findings(subject: Subject, cube: Cube) -> list[Finding]:
    """All that is to be said of one cube."""
    area = f"cube {cube.id}"
    if not cube.enabled:
        return [skipped(area, "It is disabled")]
    found = list(_registration(subject, cube, area))
    found += await _gateway(subject, cube, area)
    found += await _application(subject, cube, area)
    return found


# The registration


def _is_registered(subject: Subject, cube: Cube) -> bool:
    standing = standings(subject).get(cube.id)
    return standing is not None and standing.registered


def _registration(subject: Subject, cube: Cube, area: str) -> Iterator[Finding]:
    view = subject.running.cubes.get(cube.id) if subject.running is not None else None
    if view is None:
        return
    registration = view["registration"]
    if registration["state"] == "registered":
        last = registration["last_message_at"]
        said = f"; the last message came {_local(last)}" if last else ""
        yield ok(area, f"It is registered, as {registration['registration_id']}{said}")
        return
    words = [f"It is {registration['state']} since {_local(registration['since'])}"]
    reason = registration["reason"].rstrip(".")
    if reason:
        words.append(reason)
    met = registration["last_error"]
    if met and met.rstrip(".") not in reason:
        words.append(met.rstrip("."))
    yield failed(area, ". ".join(words), *_advice(view))


def _advice(view: Any) -> list[str]:
    try:
        return advice(msgspec.convert(view, CubeView))
    except msgspec.ValidationError:
        # A service of another version has other fields.
        return []


def _local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


# The gateway


async def _gateway(subject: Subject, cube: Cube, area: str) -> list[Finding]:
    url = urlsplit(cube.provider_url)
    where = _netloc(url)
    found = list(_files(subject, cube, area))
    creator = None
    try:
        if url.scheme == "https":
            trust = GatewayTrust(cube, subject.folder)
            creator = trust.creatorForNetloc((url.hostname or "").encode("ascii"), url.port or 443)
        route = way(subject.reactor, cube.provider_url, creator)
        seen = await visit(subject.reactor, route, question(cube.provider_url))
    except TlsFileError as error:
        return [*found, failed(area, f"{error}: its gateway cannot be asked", "Mend the file.")]
    except VisitError as error:
        steps = of_the_error(error.error_class.value, where, url.scheme)
        if error.error_class is ErrorClass.TLS:
            known = cube.id if subject.running is not None else cube.provider_url
            steps = [f"`cubehook pin {known}` shows the certificate, and how it can be pinned.", *steps]
        return [*found, failed(area, f"The gateway {_of_a_router(error.of(where))}", *steps)]
    said = opinion(f"the gateway {where}", seen.headers.get("date"), subject.now())
    if said is not None:
        subject.opinions.append(said)
    found.append(_answer(seen, where, area, is_registered=_is_registered(subject, cube)))
    if seen.certificate is not None and not cube.pins:
        found += certificate_findings(area, f"The certificate of {where}", seen.certificate, subject.today)
    return found


def _files(subject: Subject, cube: Cube, area: str) -> Iterator[Finding]:
    key, folder, today = f"cubes.{cube.id}", subject.folder, subject.today
    if cube.ca_file is not None:
        yield from authorities_findings(area, f"{key}.ca_file", folder / cube.ca_file, today)
    if cube.client_certificate is not None:
        path = folder / cube.client_certificate
        own = folder / (cube.client_key or cube.client_certificate)
        names = f"{key}.client_certificate", f"{key}.client_key"
        yield from identity_findings(area, names[0], path, names[1], own, today)


def _of_a_router(words: str) -> str:
    return words.replace("the receiver", "the router")


def _answer(seen: Visit, where: str, area: str, *, is_registered: bool) -> Finding:
    """What a GET met: the provider itself takes only POST, and what it says to others differs."""
    address = f" ({seen.address})" if seen.address != where else ""
    server = seen.headers.get("server", "")
    who = f" ({server})" if server else ""
    takes = f"The gateway {where}{address} takes connections, in {seen.took}, and answers"
    if seen.status is None:
        return warning(
            area,
            f"{takes} with no HTTP status{who}: that is no router's web server",
            "Compare the host and the port of provider_url with the router's.",
        )
    told = f"{takes} {seen.status}{who}"
    if 300 <= seen.status < 400:
        return warning(
            area,
            f"{told}, with a redirect to {seen.headers.get('location', 'nowhere')}",
            "A web page or a login may stand where the XCC provider should.",
        )
    if seen.status in (401, 403):
        return warning(
            area,
            f"{told}: it wants a login, or does not let us in",
            "See `ip http authentication` and `ip http access-class` on the router.",
        )
    if not is_registered and (seen.status == 404 or (server and "cisco" not in server.lower())):
        return warning(
            area,
            f"{told}: that need not be a router's XCC provider",
            "On the router, `uc wsapi` and `provider xcc` with `no shutdown` must be there, and "
            "`ip http active-session-modules` must not be none.",
        )
    return ok(area, told)


# The application URL


async def _application(subject: Subject, cube: Cube, area: str) -> list[Finding]:
    url = urlsplit(cube.application_url)
    addresses = await _addresses(subject, url.hostname or "")
    if not addresses:
        return [
            failed(
                area,
                f"The name {url.hostname} in application_url does not resolve here",
                "The router must know it too: an address is safer.",
            )
        ]
    here = any(ports.is_here(address) for address in addresses)
    if subject.running is None:
        return [_leads(subject, url, area, here=here)]
    return await _knock(subject, cube, url, area, here=here)


async def _addresses(subject: Subject, host: str) -> list[str]:
    try:
        return await Addresses(subject.reactor, anywhere, host).get()
    except DNSLookupError:
        return []


def _leads(subject: Subject, url: SplitResult, area: str, *, here: bool) -> Finding:
    """As far as can be told without a service that would answer."""
    port = url.port or (443 if url.scheme == "https" else 80)
    listening = [each.port for each in subject.listeners("cubes")]
    told = f"application_url {url.geturl()}"
    if not here:
        return warning(
            area,
            f"{told}: {url.hostname} is no address of this machine",
            "That is right only if a proxy or NAT passes it on to this machine.",
        )
    if port not in listening and None not in listening and listening:
        differ = f"{told} has the port {port}, and listen.cubes has {', '.join(map(str, listening))}"
        held = ports.holders(port)
        if held:
            told_of = ", ".join(map(str, held))
            return warning(area, differ, f"That is right only if {told_of} there passes it on.")
        return failed(area, differ, "Let them be the same.")
    schemes = {each.scheme for each in subject.listeners("cubes") if each.port == port}
    if schemes and url.scheme not in schemes:
        return failed(
            area,
            f"{told} is {url.scheme}, and what listens on port {port} is {', '.join(schemes)}",
            _SCHEMES,
        )
    return ok(area, f"{told} leads to this machine, and to a port of listen.cubes")


async def _knock(subject: Subject, cube: Cube, url: SplitResult, area: str, *, here: bool) -> list[Finding]:
    try:
        knock = await subject.post("/knocks")
    except ControlError as error:
        return [skipped(area, f"Whether application_url leads here could not be tried: {error}")]
    asked = question(cube.application_url, {knock["header"]: knock["nonce"]})
    try:
        seen = await visit(subject.reactor, way(subject.reactor, cube.application_url), asked)
    except VisitError as error:
        if subject.wants_certificates(url.scheme):
            return [skipped(area, f"Whether application_url leads here: {WANTS_CERTIFICATES}")]
        return [_not_reached(subject, url, area, error, here=here)]
    try:
        knock = await subject.get(f"/knocks/{knock['nonce']}")
    except ControlError as error:
        return [skipped(area, f"Whether application_url leads here could not be tried: {error}")]
    found = [_arrived(cube, seen, url, area, knock)]
    if seen.certificate is not None and seen.certificate not in subject.own_certificates:
        what = f"The certificate of {_netloc(url)}"
        found += certificate_findings(area, what, seen.certificate, subject.today, url.hostname)
    return found


def _arrived(cube: Cube, seen: Visit, url: SplitResult, area: str, knock: Any) -> Finding:
    told = f"application_url {cube.application_url}"
    if not knock["arrived"]:
        server = seen.headers.get("server", "")
        who = f" ({server})" if server else ""
        return failed(
            area,
            f"{told} does not lead here: another program answers there{who}, with HTTP status {seen.status}",
            _holders(seen.address)
            or "Look who that is: a proxy that does not pass it on, or another machine.",
            "The router would speak to it instead of cubehook.",
        )
    if cube.id not in knock["cubes"]:
        return failed(
            area,
            f"{told} leads here, but its path {url.path or '/'} came as one that this cube has not",
            "Something on the way changes the path: pass it on as it is.",
        )
    return ok(area, f"{told} leads here, in {seen.took}")


def _not_reached(subject: Subject, url: SplitResult, area: str, error: VisitError, *, here: bool) -> Finding:
    told = f"application_url: {error.of(_netloc(url))}"
    if not here:
        return warning(
            area,
            f"{told}; it is no address of this machine",
            "Behind NAT this need not mean that the router cannot: look at `show wsapi registration all`.",
        )
    listening = [str(each.port) for each in subject.listeners("cubes")]
    steps = [f"listen.cubes has {', '.join(listening)}: let the port be the same."] if listening else []
    if error.error_class is ErrorClass.TLS or error.error_class is ErrorClass.HTTP:
        steps = [_SCHEMES]
    return failed(area, told, *steps)


def _holders(address: str) -> str:
    """Who listens at an address of this machine, in a sentence; empty if it is another's."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or not ports.is_here(host):
        return ""
    found = ports.holders(int(port), host)
    return f"Port {port} is held by {', '.join(map(str, found))}." if found else ""


def _netloc(url: SplitResult) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
