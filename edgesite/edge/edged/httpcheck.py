"""HTTP GETs of probes and hooks, and ports given by name.

Errors  ValueError for a port name that the container does not have; OSError when nothing answers.
Source  core/v1 HTTPGetAction: certificates are not verified, status 200 to 399 is success.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesite.context import Net

__all__ = ["HttpTarget", "http_status", "http_target", "port_number", "socket_address"]


@dataclass(frozen=True, slots=True)
class HttpTarget:
    address: str  #: host:port
    path: str
    headers: tuple[tuple[str, str], ...]
    secure: bool


def port_number(container: Mapping[str, Any], port: int | str | None) -> int:
    """Return the number of a port given as number, digits, or name. Raises ValueError."""
    if isinstance(port, int):
        return port
    if port and port.isdigit():
        return int(port)
    for one in container.get("ports") or ():
        if port and one.get("name") == port:
            return int(one.get("containerPort", 0))
    raise ValueError(f"couldn't find port {port!r} in container {container.get('name')}")


def socket_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http_target(container: Mapping[str, Any], action: Mapping[str, Any], ip: str) -> HttpTarget:
    """Return where an httpGet action goes; ``ip`` is the pod's. Raises ValueError."""
    host = action.get("host") or ip
    path = action.get("path") or "/"
    headers = {str(one.get("name", "")).lower(): str(one.get("value", "")) for one in action.get("httpHeaders") or ()}
    headers.setdefault("user-agent", "kube-probe/1.36")
    headers.setdefault("accept", "*/*")
    address = socket_address(host, port_number(container, action.get("port")))
    return HttpTarget(
        address,
        path if path.startswith("/") else f"/{path}",
        tuple(headers.items()),
        (action.get("scheme") or "HTTP").upper() == "HTTPS",
    )


async def http_status(net: Net, target: HttpTarget) -> tuple[int, bytes]:
    """Return the answer's status and the beginning of its body. The caller sets the deadline. Raises OSError."""
    from edgesite.net.client import HttpClient

    tls = None
    if target.secure:
        from edgesite.net.tls import client_context

        tls = client_context(verify=False, check_hostname=False)
    async with HttpClient(net, target.address, tls=tls) as client:
        answer = await client.request("GET", target.path, dict(target.headers))
    return answer.status, answer.body[:10_240]
