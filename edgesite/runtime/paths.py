"""Where a site keeps things, and the defaults that follow from the machine: data folder, host name, addresses.

Source  KubeEdge v1.12, pkg/apis/componentconfig (defaults) and pkg/util (host name and local address).
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any, Final

__all__ = ["SYSTEM_DIR", "cloud_defaults", "default_data_dir", "edge_defaults", "host_name", "local_ip"]

SYSTEM_DIR: Final = Path("/var/lib/kubeedge")
POD_LOGS_DIR: Final = Path("/var/log/pods")  #: where kubelets have the logs of containers, and collectors look for them
DEVICE_PLUGINS_DIR: Final = Path(
    "/var/lib/kubelet/device-plugins"
)  #: fixed in device plugins, whatever kubelet's root is
POD_RESOURCES_DIR: Final = Path("/var/lib/kubelet/pod-resources")  #: fixed in what asks for them
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def default_data_dir() -> Path:
    """/var/lib/kubeedge as root, or who may write there; else the user's data folder."""
    if os.geteuid() == 0 or os.access(SYSTEM_DIR, os.W_OK):
        return SYSTEM_DIR
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "edgesite"


def host_name() -> str:
    """The host's name if it may name a node, else ``default-edge-node``, as KubeEdge has it."""
    name = socket.gethostname()
    return name if _NODE_NAME.fullmatch(name) and len(name) <= 253 else "default-edge-node"


def local_ip() -> str:
    """The address of the default route's interface; loopback where there is none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # a documentation address: connecting a datagram socket only picks the route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def cloud_defaults(data_dir: Path, *, kubeedge_paths: bool, advertise: str) -> dict[str, Any]:
    """Defaults of the cloud role. ``kubeedge_paths`` keeps KubeEdge's own under /etc/kubeedge."""
    hub: dict[str, Any] = {"advertiseAddress": [advertise]}
    stream: dict[str, Any] = {}
    if not kubeedge_paths:
        pki = data_dir / "pki" / "hub"
        files = {
            "tlsCAFile": "rootCA.crt",
            "tlsCAKeyFile": "rootCA.key",
            "tlsCertFile": "server.crt",
            "tlsPrivateKeyFile": "server.key",
        }
        hub |= {name: str(pki / file) for name, file in files.items()}
        hub["unixsocket"] = {"address": f"unix://{data_dir / 'kubeedge.sock'}"}
        stream = {
            "tlsTunnelCAFile": str(pki / "rootCA.crt"),
            "tlsTunnelCertFile": str(pki / "server.crt"),
            "tlsTunnelPrivateKeyFile": str(pki / "server.key"),
        }
    return {"modules": {"cloudHub": hub, "cloudStream": stream}}


def edge_defaults(data_dir: Path, *, kubeedge_paths: bool, node_name: str, cloud: str) -> dict[str, Any]:
    """Defaults of an edge role whose own folder is ``data_dir``. ``cloud`` is the host of the cloud role."""
    hub: dict[str, Any] = {
        "httpServer": f"https://{cloud}:10002",
        "websocket": {"server": f"{cloud}:10000"},
        "quic": {"server": f"{cloud}:10001"},
    }
    stream: dict[str, Any] = {"server": f"{cloud}:10004"}
    edged: dict[str, Any] = {"hostnameOverride": node_name}
    defaults: dict[str, Any] = {"modules": {"edged": edged, "edgeHub": hub, "edgeStream": stream}}
    if kubeedge_paths:
        edged["podLogsDirectory"] = str(POD_LOGS_DIR)
        edged["devicePluginsDirectory"] = str(DEVICE_PLUGINS_DIR)
        edged["podResourcesDirectory"] = str(POD_RESOURCES_DIR)
    else:
        pki = data_dir / "pki"
        hub |= {
            "tlsCaFile": str(pki / "rootCA.crt"),
            "tlsCertFile": str(pki / "server.crt"),
            "tlsPrivateKeyFile": str(pki / "server.key"),
        }
        stream |= {
            "tlsTunnelCAFile": str(pki / "rootCA.crt"),
            "tlsTunnelCertFile": str(pki / "server.crt"),
            "tlsTunnelPrivateKeyFile": str(pki / "server.key"),
        }
        edged |= {"rootDirectory": str(data_dir / "edged"), "seccompProfileRoot": str(data_dir / "edged" / "seccomp")}
        defaults["modules"]["deviceTwin"] = {"dmiSockPath": str(data_dir)}
        defaults["database"] = {"dataSource": str(data_dir / "edgecore.db")}
    return defaults
