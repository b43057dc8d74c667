"""The endpoints of `[listen]`: whether they answer, whether that is this service, and who else it is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from cubehook.config_rules import endpoint_parts, is_tls
from cubehook.control import ControlError
from cubehook.doctor import ports
from cubehook.doctor.certificates import MEND, authorities_findings, certificate_findings
from cubehook.doctor.findings import Finding, failed, ok, skipped, warning
from cubehook.doctor.subject import Listener, Subject
from cubehook.doctor.visiting import Visit, VisitError, question, visit, way
from cubehook.net.certificates import TlsFileError, read_identity

AREA = "listeners"
WANTS_CERTIFICATES = (
    "it is not tried, for it lets in nobody without a certificate that listen.client_ca vouches for"
)


async def listener_findings(subject: Subject, listener: Listener) -> list[Finding]:
    """Whether one endpoint is as it should be."""
    told = listener.name
    files = _files(subject, listener)
    if listener.port is None:
        return [*files, _untold(listener, told)]
    if subject.running is None:
        return [*files, await subject.in_thread(_free, subject, listener, told)]
    return [*files, *await _answers(subject, listener, told)]


def _files(subject: Subject, listener: Listener) -> list[Finding]:
    if not is_tls(listener.endpoint):
        return []
    _, arguments = endpoint_parts(listener.endpoint)
    key = Path(arguments["privateKey"])
    path = Path(arguments.get("certKey") or key)
    name = listener.name
    try:
        identity = read_identity(name, path, name, key)
    except TlsFileError as error:
        return [failed(AREA, str(error), MEND)]
    subject.own_certificates.append(identity.certificate)
    host = _host(subject, listener)
    what = f"{name}: {path}"
    found = list(certificate_findings(AREA, what, identity.certificate, subject.today, host))
    authorities = subject.config.listen.client_ca if subject.config else None
    if authorities is not None and listener.is_for_cubes:
        found += authorities_findings(AREA, "listen.client_ca", authorities, subject.today)
    return found


def _host(subject: Subject, listener: Listener) -> str | None:
    """Whom gateways take this for: the host of the first application URL that leads here."""
    for cube in subject.cubes:
        url = urlsplit(cube.application_url)
        if listener.is_for_cubes and url.scheme == "https" and (url.port or 443) == listener.port:
            return url.hostname
    return None


def _untold(listener: Listener, told: str) -> Finding:
    kind, arguments = endpoint_parts(listener.endpoint)
    if kind == "unix":
        path = Path(arguments.get("address", ""))
        if path.is_socket():
            return ok(AREA, f"{told}: the socket is there")
        return skipped(AREA, f"{told}: there is no socket, as the service does not run")
    return skipped(AREA, f"{told}: where that is cannot be told from here")


def _free(subject: Subject, listener: Listener, told: str) -> Finding:
    """Whether the port can be had by a service that starts now."""
    assert listener.port is not None
    held = ports.holders(listener.port, listener.host)
    if subject.holder is not None and subject.holder in [each.pid for each in held]:
        return skipped(AREA, f"{told}: the service has the port, but could not be asked")
    if held:
        return failed(
            AREA,
            f"{told}: port {listener.port} is taken by {', '.join(map(str, held))}",
            f"Stop that program, or write another port in {listener.key}.",
        )
    error = ports.cannot_bind(listener.host or "0.0.0.0", listener.port)  # noqa: S104
    if error is None:
        return ok(AREA, f"{told}: the port is free")
    if isinstance(error, PermissionError):
        return failed(
            AREA,
            f"{told}: this user may not listen on port {listener.port}",
            "Use a port from 1024 on, or give the service CAP_NET_BIND_SERVICE.",
        )
    return failed(
        AREA,
        f"{told}: {error.strerror}",
        f"Write an address of this machine, or none, as the interface in {listener.key}.",
    )


async def _answers(subject: Subject, listener: Listener, told: str) -> list[Finding]:
    assert listener.port is not None
    for_cubes = listener.is_for_cubes
    try:
        knock = await subject.post("/knocks") if for_cubes else None
        headers = {} if knock is None else {knock["header"]: knock["nonce"]}
        url = listener.url + ("/" if for_cubes else "/healthz")
        try:
            seen = await visit(subject.reactor, way(subject.reactor, url), question(url, headers))
        except VisitError as error:
            if subject.wants_certificates(listener.scheme) and for_cubes:
                return [skipped(AREA, f"{told}: {WANTS_CERTIFICATES}")]
            return [_silent(listener, told, error)]
        if knock is not None:
            knock = await subject.get(f"/knocks/{knock['nonce']}")
    except ControlError as error:
        return [skipped(AREA, f"{told}: whether it answers could not be tried: {error}")]
    ours = knock["arrived"] if knock is not None else (seen.status == 200 and seen.body == b"ok\n")
    if not ours:
        return [_other(listener, told, seen)]
    found = [ok(AREA, f"{told}: this service answers there, in {seen.took}")]
    if seen.certificate is not None and seen.certificate not in subject.own_certificates:
        found.append(
            warning(
                AREA,
                f"{told}: it shows another certificate than is in its file",
                "Let it be read again: cubehook reload",
            )
        )
    return found


def _silent(listener: Listener, told: str, error: VisitError) -> Finding:
    assert listener.port is not None
    held = ports.holders(listener.port, listener.host)
    if held:
        return failed(
            AREA,
            f"{told}: {error}; port {listener.port} is held by {', '.join(map(str, held))}",
            "If that is not the service, stop it and start the service again.",
        )
    return failed(
        AREA,
        f"{told}: {error.of('it')}, though the service runs",
        "Was the file changed since it was read? Try `cubehook reload`, or look at log/cubehook.log.",
    )


def _other(listener: Listener, told: str, seen: Visit) -> Finding:
    assert listener.port is not None
    held = ports.holders(listener.port, listener.host)
    server = seen.headers.get("server")
    who = ", ".join(map(str, held)) or "another program"
    said = f" as {server}" if server else ""
    return failed(
        AREA,
        f"{told}: {who} answers there{said} with HTTP status {seen.status}, not this service",
        "Was the configuration changed since the service was started? Stop that program, or use another "
        "port.",
    )
