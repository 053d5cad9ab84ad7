"""The hub's certificates and join token, kept as Secrets, so that every instance of the cloud role has the same.

    kubeedge/casecret          cadata, cakeydata                    DER; the key is SEC 1
    kubeedge/cloudcoresecret   cloudcoredata, cloudcorekeydata      DER; the key is SEC 1
    kubeedge/tokensecret       tokendata                            text

Local files win and are then written to the Secrets; else the Secrets; else they are made. A server certificate of ours is made
anew when the names change that it must hold.

Errors  ApiError from the API; PkiError and OSError when certificates cannot be made; ValueError for files that are none.
Source  KubeEdge v1.12.7, reference/hub-and-metadata.md sections 3.1 and 3.2.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.cloudhub import jointoken
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NAMESPACES, SECRETS
from edgesite.net import pem
from edgesite.net.pki import SERVER, KeyPair, Pki

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock, Section, Threads

__all__ = ["NAMESPACE", "Authority", "AuthorityKeeper"]

NAMESPACE: Final = "kubeedge"
_NAMES: Final = "edgesite.kubeedge.io/names"  #: annotation: what the server certificate is for
_DAYS: Final = 36500
_CA_SERIAL: Final = 1024
_PLAUSIBLE: Final = 1_700_000_000.0  #: no token is made by a clock that is behind this (2023)


@dataclass(frozen=True, slots=True)
class Authority:
    """What the listeners need."""

    ca: KeyPair
    server: KeyPair

    @property
    def ca_der(self) -> bytes:
        return pem.to_der(self.ca.certificate)

    @property
    def ca_key_der(self) -> bytes:
        return pem.to_der(self.ca.key)


class AuthorityKeeper:
    """Loads or makes the certificates, and renews the token."""

    def __init__(self, client: Client, config: Section, pki: Pki, threads: Threads, clock: Clock) -> None:
        self._client = client
        self._config = config
        self._pki = pki
        self._threads = threads
        self._clock = clock

    async def load(self) -> Authority:
        """Return the certificates; on return the Secrets hold them."""
        await self._ensure_namespace()
        ca = await self._load("casecret", "cadata", "cakeydata", "tlsCAFile", "tlsCAKeyFile")
        server = None
        if ca is not None:
            server = await self._load(
                "cloudcoresecret",
                "cloudcoredata",
                "cloudcorekeydata",
                "tlsCertFile",
                "tlsPrivateKeyFile",
                self._names(),
            )
        if ca is None or server is None:
            async with self._pki.session() as pki:
                ca = ca or await self._make_ca(pki)
                server = await self._make_server(pki, ca)
        return Authority(ca, server)

    async def _make_ca(self, pki: Pki) -> KeyPair:
        ca = await pki.make_ca("KubeEdge", days=_DAYS, serial=_CA_SERIAL)
        await self._store("casecret", "cadata", "cakeydata", ca)
        return ca

    async def _make_server(self, pki: Pki, ca: KeyPair) -> KeyPair:
        dns_names, ips = self._subject_names()
        server = await pki.issue(
            ca, "KubeEdge", organizations=["KubeEdge"], dns_names=dns_names, ips=ips, usages=SERVER, days=_DAYS
        )
        await self._store("cloudcoresecret", "cloudcoredata", "cloudcorekeydata", server, self._names())
        return server

    async def renew_token(self, authority: Authority) -> float:
        """Write a new token; returns the seconds after which to do it again."""
        hours = float(self._config.get("tokenRefreshDuration") or 12)
        now = self._clock.time()
        if now < _PLAUSIBLE:
            return 10.0
        token = jointoken.make(authority.ca_der, authority.ca_key_der, int(now + hours * 2 * 3600))
        await self._put("tokensecret", {"tokendata": token.encode()})
        return hours * 3600

    # -- where they are kept -------------------------------------------------------------------------------------

    async def _load(
        self, secret: str, data_key: str, key_key: str, file: str, key_file: str, names: str = ""
    ) -> KeyPair | None:
        found = await self._threads.run(
            _read_pair, str(self._config.get(file) or ""), str(self._config.get(key_file) or "")
        )
        if found is not None:
            await self._store(secret, data_key, key_key, found)
            return found
        try:
            obj = await self._client.get(SECRETS, secret, NAMESPACE)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise
        data = obj.get("data") or {}
        if not data.get(data_key) or not data.get(key_key):
            return None
        made_for = (obj["metadata"].get("annotations") or {}).get(_NAMES)
        if names and made_for is not None and made_for != names:
            return None
        certificate, key = base64.b64decode(data[data_key]), base64.b64decode(data[key_key])
        return KeyPair(pem.from_der(certificate), pem.from_der(key, _key_label(key)))

    async def _store(self, secret: str, data_key: str, key_key: str, pair: KeyPair, names: str = "") -> None:
        data = {data_key: pem.to_der(pair.certificate), key_key: pem.to_der(pair.key)}
        await self._put(secret, data, {_NAMES: names} if names else {})

    async def _put(self, name: str, data: dict[str, bytes], annotations: dict[str, str] | None = None) -> None:
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE}
        if annotations:
            metadata["annotations"] = annotations
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
        try:
            await self._client.create(SECRETS, secret)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            patch = {"metadata": {"annotations": annotations or {}}, "data": encoded}
            await self._client.patch(SECRETS, name, patch, NAMESPACE)

    async def _ensure_namespace(self) -> None:
        try:
            await self._client.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            )
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise

    # -- names of the server -------------------------------------------------------------------------------------

    def _subject_names(self) -> tuple[list[str], list[str]]:
        """DNS names and addresses under which edges may reach us; loopback is always among them."""
        dns_names, ips = {"localhost"}, {"127.0.0.1", "::1"}
        for name in (*self._config.get("dnsNames", ()), *self._config.get("advertiseAddress", ())):
            try:
                ips.add(str(ipaddress.ip_address(name)))
            except ValueError:
                if name:
                    dns_names.add(name)
        return sorted(dns_names), sorted(ips)

    def _names(self) -> str:
        dns_names, ips = self._subject_names()
        return ",".join((*dns_names, *ips))


def _read_pair(certificate: str, key: str) -> KeyPair | None:
    """Raises ValueError if only one of the two files is there."""
    paths = [Path(one) for one in (certificate, key) if one]
    there = [one.is_file() for one in paths]
    if len(paths) < 2 or not any(there):
        return None
    if not all(there):
        raise ValueError(f"{certificate} and {key} belong together, and only one of them is there")
    return KeyPair(paths[0].read_bytes(), _as_sec1(paths[1].read_bytes()))


def _as_sec1(key: bytes) -> bytes:
    """KubeEdge writes SEC 1 keys in blocks that say PRIVATE KEY, which only Go reads."""
    der = pem.to_der(key)
    return pem.from_der(der, _key_label(der))


def _key_label(der: bytes) -> str:
    """SEC 1 keys begin with version 1, PKCS #8 keys with version 0."""
    return "EC PRIVATE KEY" if b"\x02\x01\x01" in der[2:8] else "PRIVATE KEY"
