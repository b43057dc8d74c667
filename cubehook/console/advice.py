"""What to look at when a cube is not registered: by its state and what was met last.  Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from cubehook.api.cubes import Cube

_PROVIDER = (
    "On the router, `show running-config | section wsapi` must show `provider xcc` with `no shutdown`."
)
_REMOTE_URL = (
    "The router's `remote-url` must be {application} to the letter: a host name in the place of an address, "
    "another port, or a slash at the end make it another application."
)
_SHOW = (
    "`show wsapi registration all` on the router lists who is registered, and `debug wsapi xcc all` tells "
    "why not."
)
_LOGIN = "Nothing between the router and cubehook may redirect, or ask for a login."


def advice(cube: Cube) -> list[str]:
    """
    Steps to take, the likeliest cause first; none for a cube that is registered or disabled.

    Between backquotes stands what is to be typed or compared.
    """
    state = cube.registration.state.value
    if state in ("registered", "disabled"):
        return []
    gateway = urlsplit(cube.provider_url)
    where = f"{gateway.hostname}:{gateway.port or (443 if gateway.scheme == 'https' else 80)}"
    met = (cube.registration.last_error or "").lower()
    steps = of_the_error(met, where, gateway.scheme)
    application = f"`{cube.application_url}`"
    if state == "rejected":
        steps += [_REMOTE_URL.format(application=application), _PROVIDER]
    elif state == "silent":
        ours = urlsplit(cube.application_url)
        steps += [
            f"The router has us registered but does not call: it must reach `{ours.netloc}` from its "
            "`source-address`. Look for a firewall or a missing route in between.",
            _LOGIN,
        ]
        if ours.scheme == "https":
            steps.append(
                "In secure mode the router must trust cubehook's certificate: it needs a trustpoint for who "
                "signed that (`cubehook ios`). cubehook's log tells of gateways that do not."
            )
        if cube.allow_from:
            steps.append(
                "Requests are taken only from the allowed addresses: the router's `source-address` must be "
                "one of them."
            )
    else:
        steps += [_PROVIDER, _REMOTE_URL.format(application=application)]
    return [*dict.fromkeys([*steps, _SHOW])]


def of_the_error(met: str, where: str, scheme: str) -> list[str]:
    """What to look at at `where`, a gateway's host and port, when `met` (in small letters) was met there."""
    if "refused" in met:
        secure = "secure-" if scheme == "https" else ""
        port = "" if secure else " Without TLS its port is always 8090."
        return [
            f"Nothing listens at `{where}`: the router needs `ip http {secure}server` and, under "
            f"`uc {secure}wsapi`, `provider xcc` with `no shutdown`.{port}",
            f"`ip http {secure}active-session-modules none` on the router would switch it off.",
        ]
    if "timed out" in met or "timeout" in met or "no route" in met or "unreachable" in met:
        return [f"`{where}` does not answer: is the address right, and does a firewall let us through to it?"]
    if "resolve" in met or "dns" in met or "lookup" in met:
        return [f"The name in the provider URL is not known here: write the router's address, not `{where}`."]
    if "no tls of version" in met:
        return [
            "The router speaks no TLS that is new enough: `ip http tls-version TLSv1.2` on it, or an update. "
            "Only if neither can be, let this cube speak an older one, which is not safe."
        ]
    if "no tls connection" in met and "can be made" in met:
        return [
            "A file that this cube names for secure mode is of no use. Its path starts at the state folder, "
            "on cubehook's machine, and the user cubehook runs as must be able to read it."
        ]
    if "certificate" in met or "tls" in met or "ssl" in met:
        return [
            "The router's certificate is not accepted. One that the router has signed itself must be pinned: "
            "`cubehook pin` shows it. Any other must be of an authority that this cube or this machine "
            "trusts, and for the host in the provider URL."
        ]
    if "404" in met:
        return ["The router has no such path: the provider URL ends in `/cisco_xcc`."]
    if "401" in met or "403" in met:
        return ["Who answers asks for a login. Is that the router, or something in front of it?"]
    return []
