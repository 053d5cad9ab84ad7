"""The hub's certificates and join token, kept as Secrets, so that every instance of the cloud role has the same.

    kubeedge/casecret          cadata, cakeydata                    DER; the key is SEC 1
    kubeedge/cloudcoresecret   cloudcoredata, cloudcorekeydata      DER; the key is SEC 1
    kubeedge/tokensecret       tokendata                            text

Local files win and are then written to the Secrets; else the Secrets; else they are made. A server certificate of ours is made
anew when the names change that it must hold. Where instances share an API, several may start at once: what one has made, and no
other, becomes the CA of all, and the server certificate holds the names of all.

Errors  ApiError from the API; PkiError and OSError when certificates cannot be made; ValueError for files that are none.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/servers/httpserver (Secrets, certificates, token).
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.namespace import NAMESPACE, ensure_namespace
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import SECRETS
from edgesite.net import pem
from edgesite.net.pki import PLAUSIBLE, SERVER, KeyPair, Pki

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock, Section, Threads

__all__ = ["NAMESPACE", "Authority", "AuthorityKeeper"]

_NAMES: Final = "edgesite.kubeedge.io/names"  #: annotation: what the server certificate is for
_DAYS: Final = 36500
_TRIES: Final = 10
_MOST_NAMES: Final = 64  #: of other instances, of which some may be long gone
_CA_SERIAL: Final = 1024


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

    def __init__(
        self, client: Client, config: Section, pki: Pki, threads: Threads, clock: Clock, *, is_shared: bool = False
    ) -> None:
        """``is_shared``: other instances may work on the same API."""
        self._client = client
        self._config = config
        self._pki = pki
        self._threads = threads
        self._clock = clock
        self._is_shared = is_shared

    async def load(self) -> Authority:
        """Return the certificates; on return the Secrets hold them. Raises ApiError, PkiError, OSError, ValueError."""
        await ensure_namespace(self._client)
        for _ in range(_TRIES):
            ca = await self._load("casecret", "cadata", "cakeydata", "tlsCAFile", "tlsCAKeyFile")
            if ca is None:
                ca = await self._make_ca()
            server = await self._load_server()
            if ca is not None and server is None:
                server = await self._make_server(ca)
            if ca is not None and server is not None:
                return Authority(ca, server)
        raise ApiError(409, "Conflict", "others write the certificates all the time")

    async def load_server(self, config: Section, ca: KeyPair) -> KeyPair:
        """Return the server's certificate by other settings, or from other files; on return the Secret holds it. The CA is not looked
        at: nobody would know another one. Raises ApiError, PkiError, OSError, ValueError."""
        self._config = config
        for _ in range(_TRIES):
            if (server := await self._load_server()) or (server := await self._make_server(ca)):
                return server
        raise ApiError(409, "Conflict", "others write the certificate all the time")

    async def _load_server(self) -> KeyPair | None:
        names = ("cloudcoresecret", "cloudcoredata", "cloudcorekeydata", "tlsCertFile", "tlsPrivateKeyFile")
        return await self._load(*names, self._names())

    async def _make_ca(self) -> KeyPair | None:
        """Return the new CA; None if another instance was faster."""
        empty = await self._find("casecret")
        version = str(empty["metadata"].get("resourceVersion") or "") if empty is not None else ""
        ca = await self._pki.make_ca("KubeEdge", days=_DAYS, serial=_CA_SERIAL)
        return ca if await self._store_over(version, "casecret", "cadata", "cakeydata", ca) else None

    async def _make_server(self, ca: KeyPair) -> KeyPair | None:
        """Return the new certificate; None if another instance wrote its own meanwhile."""
        found = await self._find("cloudcoresecret")
        names, version = set(self._names()), ""
        if found is not None:
            version = str(found["metadata"].get("resourceVersion") or "")
            if self._is_shared:
                names |= set((_made_for(found) or [])[:_MOST_NAMES])
        dns_names, ips = _by_type(names)
        server = await self._pki.issue(
            ca, "KubeEdge", organizations=["KubeEdge"], dns_names=dns_names, ips=ips, usages=SERVER, days=_DAYS
        )
        written = await self._store_over(
            version, "cloudcoresecret", "cloudcoredata", "cloudcorekeydata", server, (*dns_names, *ips)
        )
        return server if written else None

    async def renew_token(self, authority: Authority) -> float:
        """Write a new token; returns the seconds after which to do it again."""
        hours = float(self._config.get("tokenRefreshDuration") or 12)
        now = self._clock.time()
        if now < PLAUSIBLE:
            return 10.0
        token = jointoken.make(authority.ca_der, authority.ca_key_der, int(now + hours * 2 * 3600))
        await self._put("tokensecret", {"tokendata": token.encode()})
        return hours * 3600

    # -- where they are kept -------------------------------------------------------------------------------------

    async def _load(
        self, secret: str, data_key: str, key_key: str, file: str, key_file: str, names: Sequence[str] = ()
    ) -> KeyPair | None:
        found = await self._threads.run(
            _read_pair, str(self._config.get(file) or ""), str(self._config.get(key_file) or "")
        )
        if found is not None:
            data = {data_key: pem.to_der(found.certificate), key_key: pem.to_der(found.key)}
            await self._put(secret, data, {_NAMES: None})
            return found
        obj = await self._find(secret)
        data = (obj or {}).get("data") or {}
        if obj is None or not data.get(data_key) or not data.get(key_key):
            return None
        made_for = _made_for(obj)
        if made_for is not None and not self._serves(made_for, names):
            return None
        certificate, key = base64.b64decode(data[data_key]), base64.b64decode(data[key_key])
        return KeyPair(pem.from_der(certificate), pem.from_der(key, _key_label(key)))

    def _serves(self, made_for: Sequence[str], names: Sequence[str]) -> bool:
        return set(names) <= set(made_for) if self._is_shared else set(names) == set(made_for)

    async def _find(self, secret: str) -> dict[str, Any] | None:
        try:
            return await self._client.get(SECRETS, secret, NAMESPACE)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise

    async def _store_over(
        self, version: str, secret: str, data_key: str, key_key: str, pair: KeyPair, names: Sequence[str] = ()
    ) -> bool:
        """Write a pair over that version of its Secret, or as a new one; False if there is another by now."""
        data = {data_key: pem.to_der(pair.certificate), key_key: pem.to_der(pair.key)}
        annotations = {_NAMES: ",".join(names)} if names else {}
        try:
            if version:
                patch = {"metadata": {"annotations": annotations, "resourceVersion": version}, "data": _encoded(data)}
                await self._client.patch(SECRETS, secret, patch, NAMESPACE)
            else:
                await self._client.create(SECRETS, _secret(secret, data, annotations))
        except ApiError as exc:
            if exc.reason in ("AlreadyExists", "Conflict", "NotFound"):
                return False
            raise
        return True

    async def _put(
        self, name: str, data: dict[str, bytes], annotations: Mapping[str, str | None] | None = None
    ) -> None:
        """Write a Secret whatever it held; an annotation of None is removed."""
        patch = {"metadata": {"annotations": dict(annotations or {})}, "data": _encoded(data)}
        try:
            await self._client.patch(SECRETS, name, patch, NAMESPACE)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            await self._client.create(SECRETS, _secret(name, data, {}))

    def _names(self) -> tuple[str, ...]:
        """DNS names and addresses under which edges may reach this instance; loopback is always among them."""
        configured = (*self._config.get("dnsNames", ()), *self._config.get("advertiseAddress", ()))
        dns_names, ips = _by_type({"localhost", "127.0.0.1", "::1", *configured} - {""})
        return (*dns_names, *ips)


def _secret(name: str, data: dict[str, bytes], annotations: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": _encoded(data)}


def _encoded(data: dict[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def _made_for(secret: dict[str, Any]) -> list[str] | None:
    """The names that a server certificate of ours was made for; None for one that is not ours."""
    text = (secret["metadata"].get("annotations") or {}).get(_NAMES)
    return None if text is None else str(text).split(",")


def _by_type(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """DNS names and addresses, each sorted."""
    dns_names, ips = set(), set()
    for name in names:
        try:
            ips.add(str(ipaddress.ip_address(name)))
        except ValueError:
            dns_names.add(name)
    return sorted(dns_names), sorted(ips)


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
