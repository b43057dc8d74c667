"""
A router's configuration, held against the cube that it is: what differs, and the lines that mend it.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from cubehook.config import Cube
from cubehook.doctor.comparing import differences, is_address, nearness, parts
from cubehook.doctor.findings import Finding, failed, ok, warning
from cubehook.doctor.router_text import Http, Provider, RunningConfig, Service
from cubehook.operations.ios import ios_config

AREA = "router"

_CONNECTIONS = 20
"""What `ip http max-connections` should allow at least; by default it is 5."""

_GLOBAL = "Use the address of an interface in the global routing table."

_KEEPALIVE = 60
_NEGATIVE = 60
_SLOW_ANSWER = 5
"""Seconds that `response-timeout` should leave at least: a commit may take two on a bad day."""


class Configuration:
    """
    One router's configuration, held against `cube`.

    `in_service` says that its provider is known to take registrations, whatever the text does not say.
    """

    def __init__(self, cube: Cube, config: RunningConfig, in_service: bool) -> None:
        self._cube = cube
        self._config = config
        self._in_service = in_service
        self._secure = urlsplit(cube.provider_url).scheme == "https"
        self._name = "uc secure-wsapi" if self._secure else "uc wsapi"

    def findings(self) -> Iterator[Finding]:
        """What is right, suspicious and wrong, the most telling first."""
        cube = self._cube
        services = self._config.services
        if not services:
            yield failed(
                AREA,
                f"There is neither `uc wsapi` nor `uc secure-wsapi` in it, so cube {cube.id} has no provider",
                "On the router:",
                lines=ios_config(cube).splitlines(),
            )
            return
        if len(services) > 1:
            other = "uc wsapi" if self._secure else "uc secure-wsapi"
            yield failed(
                AREA,
                f"Both `uc wsapi` and `uc secure-wsapi` are there, which cannot be; cube {cube.id} wants "
                f"`{self._name}`, as its provider_url is {cube.provider_url}",
                lines=[f"no {other}"],
            )
        service = next((each for each in services if each.secure == self._secure), None)
        if service is None:
            yield self._other_mode(services[0])
            service = services[0]
        else:
            yield from self._provider(service)
        yield from self._times(service)
        yield from self._source(service)
        yield from self._http(self._config.http)

    def _other_mode(self, service: Service) -> Finding:
        there = _name(service)
        host = urlsplit(self._cube.provider_url).hostname
        port = self._config.http.secure_port or 443
        own = f"https://{host}:{port}/cisco_xcc" if service.secure else f"http://{host}:8090/cisco_xcc"
        return failed(
            AREA,
            f"The router has `{there}`, but the provider_url of cube {self._cube.id} is "
            f"{self._cube.provider_url}, which is for `{self._name}`",
            f'Either give the cube provider_url = "{own}" and an application_url with '
            f"{'https' if service.secure else 'http'}://, or change the router:",
            lines=[f"no {there}", *ios_config(self._cube).splitlines()],
        )

    def _provider(self, service: Service) -> Iterator[Finding]:
        cube = self._cube
        xcc = service.provider("xcc")
        if xcc is None:
            others = ", ".join(each.name for each in service.providers)
            yield failed(
                AREA,
                f"`provider xcc` is missing under `{self._name}`"
                + (f" (there is {others})" if others else ""),
                lines=[self._name, " provider xcc", "  no shutdown", f"  remote-url {cube.application_url}"],
            )
            return
        if xcc.shutdown:
            yield failed(
                AREA, "`provider xcc` is shut down", lines=[self._name, " provider xcc", "  no shutdown"]
            )
        elif xcc.shutdown is None and not self._in_service:
            yield failed(
                AREA,
                "`no shutdown` is missing under `provider xcc`",
                lines=[self._name, " provider xcc", "  no shutdown"],
            )
        yield from self._remote_urls(xcc)

    def _remote_urls(self, xcc: Provider) -> Iterator[Finding]:
        cube = self._cube
        ours = cube.application_url
        under = [self._name, " provider xcc"]
        urls = [url for _, url in xcc.remote_urls]
        if not urls:
            yield failed(
                AREA, "`provider xcc` has no remote-url", lines=[*under, f"  remote-url {_escaped(ours)}"]
            )
            return
        if ours in urls:
            yield ok(AREA, f"remote-url equals the application_url of cube {cube.id}, {ours}")
        else:
            url = max(urls, key=lambda each: nearness(each, ours))
            number = next(number for number, each in xcc.remote_urls if each == url)
            typed = "remote-url" if number is None else f"remote-url {number}"
            yield failed(
                AREA,
                f"remote-url {url} is not the application_url of cube {cube.id}, {ours}: "
                + "; ".join(differences(url, ours)),
                _instead(cube, url),
                lines=[*under, f"  {typed} {_escaped(ours)}"],
            )
        if len(urls) > 1:
            yield warning(
                AREA,
                f"`provider xcc` has {len(urls)} remote-urls, and XCC takes one application: "
                + ", ".join(url for url in urls if url != ours),
                "Which of them the router takes is its own choice: remove those that are not used.",
            )
        if self._secure and not is_address(parts(ours).host):
            yield warning(
                AREA,
                f"In secure mode the router takes an IPv4 address in remote-url, not the name "
                f"{parts(ours).host}",
                "Write the address in application_url and remote-url.",
            )

    def _times(self, service: Service) -> Iterator[Finding]:
        most, probes = service.max_failures, service.probing_max_failures
        keepalive, negative, answer = service.keepalive, service.negative, service.response_timeout
        wanted = [
            (
                most is None or most == 1,
                "one failed message ends the flow of events (message-exchange max-failures is 1)",
                " message-exchange max-failures 2",
            ),
            (
                answer is not None and answer < _SLOW_ANSWER,
                f"the router waits {answer} s for an answer, which is short (response-timeout)",
                " response-timeout 10",
            ),
            (
                probes == 1,
                "one failed probe ends the registration (probing max-failures 1)",
                " probing max-failures 5",
            ),
            (
                keepalive is not None and keepalive > _KEEPALIVE,
                f"it is noticed late that a router is silent (probing interval keepalive {keepalive})",
                " probing interval keepalive 30",
            ),
            (
                negative is not None and negative > _NEGATIVE,
                f"a failure costs the events of {negative} s (probing interval negative)",
                " probing interval negative 10",
            ),
        ]
        words = [said for is_so, said, _ in wanted if is_so]
        if words:
            yield warning(
                AREA,
                _sentence("; ".join(words)),
                lines=[_name(service), *(line for is_so, _, line in wanted if is_so)],
            )

    def _source(self, service: Service) -> Iterator[Finding]:
        cube, source = self._cube, service.source_address
        gateway = urlsplit(cube.provider_url).hostname or ""
        name = _name(service)
        if service.source_vrf is not None:
            yield failed(
                AREA, f"source-address is in the VRF {service.source_vrf}: XCC works in no VRF", _GLOBAL
            )
        if source is None:
            if is_address(gateway):
                yield warning(
                    AREA,
                    f"There is no source-address: the router may call from another address than {gateway}",
                    lines=[name, f" source-address {gateway}"],
                )
            return
        if is_address(source) and cube.allow_from and not _allowed(cube, source):
            yield failed(
                AREA,
                f"source-address {source} is not in allow_from of cube {cube.id}, so the router's messages "
                "are refused",
                f'Add "{source}" to allow_from, or on the router:',
                lines=[name, f" source-address {gateway}"] if is_address(gateway) else [],
            )
        elif is_address(source) and is_address(gateway) and source != gateway:
            yield warning(
                AREA,
                f"source-address {source} is not the host of provider_url, {gateway}",
                "The router calls from another address than it is called at, which firewalls must let "
                "through. If it is not meant:",
                lines=[name, f" source-address {gateway}"],
            )
        yield from self._interface(source)

    def _interface(self, source: str) -> Iterator[Finding]:
        if not self._config.whole or not self._config.interfaces or not is_address(source):
            return
        found = next((each for each in self._config.interfaces if source in each.addresses), None)
        if found is None:
            if any(each.addresses for each in self._config.interfaces):
                yield warning(AREA, f"No interface of the router has the address {source} (source-address)")
        elif found.vrf is not None:
            yield failed(
                AREA,
                f"source-address {source} is on {found.name}, in the VRF {found.vrf}: XCC works in no VRF",
                _GLOBAL,
            )
        elif found.shutdown:
            yield failed(
                AREA,
                f"source-address {source} is on {found.name}, which is shut down",
                lines=[f"interface {found.name}", " no shutdown"],
            )

    def _http(self, http: Http) -> Iterator[Finding]:
        whole = self._config.whole
        if self._secure:
            yield from self._secure_http(http)
            on, command, modules = http.secure_server, "ip http secure-server", http.secure_session_modules
        else:
            on, command, modules = http.server, "ip http server", http.session_modules
        if on is False or (on is None and whole):
            yield failed(
                AREA, f"`{command}` is missing: the router takes no requests to register", lines=[command]
            )
        if modules == "none":
            name = "secure-active-session-modules" if self._secure else "active-session-modules"
            yield failed(
                AREA,
                f"`ip http {name} none` switches the provider off",
                lines=[f"ip http {name} all"],
            )
        most = 5 if http.max_connections is None and whole else http.max_connections
        if most is not None and most < _CONNECTIONS:
            yield warning(
                AREA,
                f"The router takes {most} connections at once (ip http max-connections)",
                lines=["ip http max-connections 100"],
            )
        if http.access_class is not None:
            yield warning(
                AREA,
                f"`ip http access-class` {http.access_class} limits who may ask the router: cubehook's "
                "address must be in it",
            )

    def _secure_http(self, http: Http) -> Iterator[Finding]:
        expected = parts(self._cube.provider_url).port
        port = 443 if http.secure_port is None and self._config.whole else http.secure_port
        if port is not None and port != expected:
            yield failed(
                AREA,
                f"The router listens on port {port} (ip http secure-port), and the provider_url of cube "
                f"{self._cube.id} has {expected}",
                "Change provider_url, or on the router:",
                lines=[f"ip http secure-port {expected}"],
            )


def _instead(cube: Cube, url: str) -> str:
    """How either side can be changed, the router by the lines that follow."""
    if not _quotable(url):
        return "On the router:"
    return (
        f'If the router\'s URL leads to one of listen.cubes, set application_url = "{url}" in '
        f"[cubes.{cube.id}]; else, on the router:"
    )


def _quotable(url: str) -> bool:
    return all(" " < char <= "~" and char not in '"\\' for char in url)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _allowed(cube: Cube, address: str) -> bool:
    found = ip_address(address)
    networks = (ip_network(network, strict=False) for network in cube.allow_from)
    return any(found.version == network.version and found in network for network in networks)


def _escaped(url: str) -> str:
    # IOS takes ? for a question.
    return url.replace("?", "<Ctrl+V>?")


def _name(service: Service) -> str:
    return "uc secure-wsapi" if service.secure else "uc wsapi"
