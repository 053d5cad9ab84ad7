"""How to reach an API server: read from a kubeconfig, or from what a pod finds in its own cluster. Plain parsing.

Errors  BadKubeconfig: missing, unreadable, or asking for what is not supported (exec plugins, proxies).
State   None.
Source  client-go, clientcmd/api/v1 (names of the members), rest.InClusterConfig (paths and variables).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["Access", "BadKubeconfig", "from_pod", "load", "parse"]

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class BadKubeconfig(ValueError):
    """The file cannot be used; the message says why, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One API server and who we are there. Certificates and keys are PEM."""

    host: str
    port: int
    tls: bool = True
    path: str = ""  #: prefix of all requests, without a slash at its end
    ca: bytes | None = None
    verify: bool = True
    server_name: str = ""  #: to verify the certificate against, if not the host
    certificate: bytes | None = None
    key: bytes | None = None
    token: str = ""
    token_file: Path | None = None  #: read anew from time to time: such tokens are rotated
    basic: str = ""  #: "user:password"
    namespace: str = "default"

    def __repr__(self) -> str:
        return f"Access({self.host}:{self.port})"


def load(path: Path, context: str = "") -> Access:
    """Read a kubeconfig file. ``context`` defaults to its current one. Raises BadKubeconfig."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadKubeconfig(f"{path}: {exc}") from exc
    return parse(text, path.parent, context)


def parse(text: str, folder: Path, context: str = "") -> Access:
    """Read a kubeconfig; paths in it are relative to ``folder``. Raises BadKubeconfig."""
    import yaml

    try:
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as exc:
        raise BadKubeconfig(f"no YAML: {exc}") from exc
    if not isinstance(config, dict):
        raise BadKubeconfig("not a kubeconfig: the top is no mapping")
    chosen = _named(config, "contexts", context or str(config.get("current-context") or ""), "context")
    cluster = _named(config, "clusters", str(chosen.get("cluster") or ""), "cluster")
    user = _named(config, "users", str(chosen["user"]), "user") if chosen.get("user") else {}
    for name in ("exec", "auth-provider"):
        if user.get(name):
            raise BadKubeconfig(f"users with {name!r} are not supported: give a token or a certificate")
    if cluster.get("proxy-url"):
        raise BadKubeconfig("proxy-url is not supported")
    return _access(cluster, user, folder, str(chosen.get("namespace") or "default"))


def from_pod(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """Return how a pod reaches the API of its cluster. Raises BadKubeconfig where this is not in a pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port.isdigit():
        raise BadKubeconfig("not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    try:
        ca = (folder / "ca.crt").read_bytes()
        (folder / "token").read_bytes()
    except OSError as exc:
        raise BadKubeconfig(f"no service account: {exc}") from exc
    namespace = folder / "namespace"
    return Access(
        host=host,
        port=int(port),
        ca=ca,
        token_file=folder / "token",
        namespace=namespace.read_text("utf-8").strip() if namespace.exists() else "default",
    )


def _named(config: Mapping[str, Any], section: str, name: str, member: str) -> Mapping[str, Any]:
    if not name:
        raise BadKubeconfig(f"no {member} is chosen")
    for one in config.get(section) or ():
        if isinstance(one, dict) and one.get("name") == name:
            found = one.get(member) or {}
            if isinstance(found, dict):
                return found
    raise BadKubeconfig(f"there is no {member} named {name!r}")


def _access(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path, namespace: str) -> Access:
    server = str(cluster.get("server") or "")
    url = urlsplit(server if "://" in server else f"https://{server}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise BadKubeconfig(f"server {server!r} is no URL")
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError as exc:
        raise BadKubeconfig(f"server {server!r}: {exc}") from exc
    token_file = user.get("tokenFile")
    return Access(
        host=url.hostname,
        port=port,
        tls=url.scheme == "https",
        path=url.path.rstrip("/"),
        ca=_pem(cluster, "certificate-authority", folder),
        verify=not cluster.get("insecure-skip-tls-verify"),
        server_name=str(cluster.get("tls-server-name") or ""),
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        token="" if token_file else str(user.get("token") or ""),
        token_file=folder / str(token_file) if token_file else None,
        basic=f"{user['username']}:{user.get('password') or ''}" if user.get("username") else "",
        namespace=namespace,
    )


def _pem(section: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    if data := section.get(f"{name}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error as exc:
            raise BadKubeconfig(f"{name}-data is no base64") from exc
    if path := section.get(name):
        try:
            return (folder / str(path)).read_bytes()
        except OSError as exc:
            raise BadKubeconfig(f"{name}: {exc}") from exc
    return None
