"""The API server's certificates and the administrator's kubeconfig: kept while they fit and last, else made anew.

Units   Times are Unix seconds.
Errors  OSError; PkiError from making certificates.
State   Files under one folder, mode 0600: ca, apiserver and admin, each .crt and .key.
Source  Kubernetes: PKI certificates and requirements (names, subjects); kubeconfig v1.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import json
from edgesite.net import pem
from edgesite.net.pki import BOTH, CLIENT, PLAUSIBLE, KeyPair
from edgesite.net.tls import server_context

if TYPE_CHECKING:
    from edgesite.net.pki import Pki

__all__ = ["Credentials", "kubeconfig", "load_or_make", "server_names", "write_private"]

DAYS: Final = 365
CA_DAYS: Final = 36500  #: so that a clock that is years ahead replaces no CA that others know
RENEW_S: Final = 30 * 86400  #: before the end of a certificate
ADMIN: Final = ("kubernetes-admin", ("system:masters",))


@dataclass(frozen=True, slots=True)
class Credentials:
    ca: KeyPair
    server: KeyPair
    admin: KeyPair


def server_names(host: str, advertised: str, more: Iterable[str], service_ip: str) -> list[str]:
    """Return the DNS names and addresses that the server's certificate is for."""
    names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        socket.gethostname().lower(),
        "127.0.0.1",
        "::1",
        service_ip,
        advertised,
        host,
        *more,
    ]
    return [name for name in dict.fromkeys(names) if name and not (_is_ip(name) and ip_address(name).is_unspecified)]


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all; on return it is there even after a power cut. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(folder: Path, name: str) -> KeyPair | None:
    """None too for a certificate and a key of which one was replaced before the power went."""
    try:
        pair = KeyPair((folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())
    except FileNotFoundError:
        return None
    try:
        server_context(pair.certificate, pair.key)
    except (ssl.SSLError, ValueError):
        return None
    return pair


def _write(folder: Path, name: str, pair: KeyPair) -> None:
    write_private(folder / f"{name}.key", pair.key)
    write_private(folder / f"{name}.crt", pair.certificate)


def _lasts(pair: KeyPair | None, now_s: float) -> bool:
    """Whether it serves on: not near its end, and not made by a clock that was ahead. A clock that is not set judges nothing."""
    if pair is None:
        return False
    try:
        facts = pem.facts(pair.certificate)
    except ValueError:
        return False
    return now_s < PLAUSIBLE or (facts.not_before <= now_s and facts.not_after > now_s + RENEW_S)


async def load_or_make(folder: Path, names: list[str], pki: Pki, now_s: float) -> Credentials:
    """Return what the folder holds, making what is missing, near its end or for other names. Raises OSError, PkiError."""
    ca, server, admin = _read(folder, "ca"), _read(folder, "apiserver"), _read(folder, "admin")
    noted = folder / "apiserver.names"
    fits = noted.exists() and noted.read_bytes() == json.dumps(names)
    if not _lasts(ca, now_s):
        ca, server, admin = None, None, None
    if not _lasts(server, now_s) or not fits:
        server = None
    if not _lasts(admin, now_s):
        admin = None
    if ca is not None and server is not None and admin is not None:
        return Credentials(ca, server, admin)
    async with pki.session() as keeper:
        if ca is None:
            ca = await keeper.make_ca("edgesite-ca", days=CA_DAYS)
            _write(folder, "ca", ca)
        if server is None:
            dns, ips = [one for one in names if not _is_ip(one)], [one for one in names if _is_ip(one)]
            server = await keeper.issue(ca, "kube-apiserver", dns_names=dns, ips=ips, usages=BOTH, days=DAYS)
            _write(folder, "apiserver", server)
            write_private(noted, json.dumps(names))
        if admin is None:
            admin = await keeper.issue(ca, ADMIN[0], organizations=ADMIN[1], usages=CLIENT, days=DAYS)
            _write(folder, "admin", admin)
    return Credentials(ca, server, admin)


def kubeconfig(credentials: Credentials, address: str, cluster: str) -> bytes:
    """Return the administrator's kubeconfig. It is JSON, which is YAML."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    user, context = ADMIN[0], f"{ADMIN[0]}@{cluster}"
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": f"https://{address}",
                    "certificate-authority-data": text(credentials.ca.certificate),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": text(credentials.admin.certificate),
                    "client-key-data": text(credentials.admin.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    return json.dumps(config) + b"\n"
