"""edgecore.yaml as ``keadm join`` writes it: what is there already, or the short default, with what the flags say.

Errors  KeadmError: the file that is there cannot be read, or the outcome is no valid configuration.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgesite.cli.keadm.failure import KeadmError

__all__ = ["EdgeWishes", "Endpoint", "edge_document", "parse_endpoint", "validated", "written"]

_HUB_PORT: Final = 10000
_QUIC_PORT: Final = 10001
_TUNNEL_PORT: Final = 10004


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the cloud is."""

    host: str  #: with brackets if it is an IPv6 address
    port: int
    cert_port: int

    @property
    def bootstrap(self) -> str:
        return f"https://{self.host}:{self.cert_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeWishes:
    """What the flags of join say."""

    cloud: Endpoint
    node: str
    token: str
    protocol: str = "websocket"
    runtime_endpoint: str = ""  #: "": no container runtime, pods are host processes if none turns up
    cgroup_driver: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    with_mqtt: bool = True


def parse_endpoint(text: str, cert_port: str) -> Endpoint:
    """Read ``host:port`` or ``host``. Raises KeadmError."""
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or (not colon and text):
        host, port = text, str(_HUB_PORT)
    elif host.count(":") > 0 and not host.startswith("["):
        raise KeadmError(f"--cloudcore-ipport {text}: write an IPv6 address as [ADDRESS]:PORT")
    numbers = [_port(port, "--cloudcore-ipport"), _port(cert_port or "10002", "--certport")]
    if not host or "/" in host:
        raise KeadmError(f"--cloudcore-ipport {text!r}: write HOST:PORT")
    return Endpoint(host, *numbers)


def _port(text: str, flag: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise KeadmError(f"{flag}: {text!r} is no port")
    return int(text)


def edge_document(base: Mapping[str, Any], wishes: EdgeWishes) -> dict[str, Any]:
    """Return the whole file as plain data; ``base`` is what was there."""
    cloud = wishes.cloud
    is_quic = wishes.protocol == "quic"
    document = _merged({"apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore"}, base)
    edged: dict[str, Any] = {"hostnameOverride": wishes.node, "containerRuntime": "remote"}
    if wishes.runtime_endpoint:
        edged |= {"remoteRuntimeEndpoint": wishes.runtime_endpoint, "remoteImageEndpoint": wishes.runtime_endpoint}
    if wishes.labels:
        edged["nodeLabels"] = dict(wishes.labels)
    if wishes.cgroup_driver:
        edged["tailoredKubeletConfig"] = {"cgroupDriver": wishes.cgroup_driver}
    hub = {
        "httpServer": cloud.bootstrap,
        "token": wishes.token,
        "websocket": {"enable": not is_quic, "server": f"{cloud.host}:{cloud.port}"},
        "quic": {"enable": is_quic, "server": f"{cloud.host}:{cloud.port if is_quic else _QUIC_PORT}"},
    }
    modules = {
        "edged": edged,
        "edgeHub": hub,
        "edgeStream": {"server": f"{cloud.host}:{_TUNNEL_PORT}"},
        # KubeEdge brings a mosquitto container; here the mode says whose broker it is, edgecore's own or one that is there.
        "eventBus": {"mqttMode": 0 if wishes.with_mqtt else 2},
    }
    return _merged(document, {"modules": modules})


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``; names of members are matched without regard to case, as KubeEdge reads them."""
    out = dict(base)
    spelt = {str(name).lower(): name for name in out}
    for name, value in over.items():
        known = spelt.get(name.lower(), name)
        before = out.get(known)
        out[known] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return out


def written(document: Mapping[str, Any], what: str) -> bytes:
    """The text of the file."""
    import yaml

    head = f"# Written by keadm {what}; change it as you like, and restart the unit.\n"
    return (head + yaml.safe_dump(dict(document), sort_keys=True, default_flow_style=False)).encode()


def validated(kind: str, data: bytes) -> dict[str, Any]:
    """All values of the role, as the program will read them from this file. Raises KeadmError."""
    from edgesite.runtime.config.load import BadConfig, load

    with tempfile.TemporaryDirectory(prefix="keadm-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_bytes(data)
        try:
            values, _ = load(
                kind, file=file, sets=(), underlay={}, overlay={}, sections=(), cache=Path(folder) / "cache"
            )
        except BadConfig as exc:
            problems = [one.replace(str(file), "the configuration") for one in exc.problems]
            raise KeadmError("\n".join(problems)) from None
    role: dict[str, Any] = values["cloud" if kind == "CloudCore" else "edge"]
    return role
