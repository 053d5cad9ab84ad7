"""Which certificate may come as which node: a node that was deleted or barred cannot come back with its old certificate.

A node that is deleted is barred: of its certificates only those count that it gets by a join token after that, and what these
are renewed to. This holds also if it was deleted while nobody looked, for the uid of its Node is remembered. A node whose Node
is annotated ``edgesite.kubeedge.io/barred: "true"`` is barred as long as it is.

A node that exists and has had a certificate is taken: `rejoin` decides whether a join token gives another one in its name. If so, the
node is barred in the same way: its former certificates count no more.

Certificates of KubeEdge before v1.16 name no node. Each is bound to the node that it was issued to, or that it first came as if that is
not taken.

State   ConfigMaps ``kubeedge/edge-identities-0`` to ``-f`` (by a hash of the key), shared by all instances of the cloud role:
        <node> -> {"uid", "barred", "certificates", "held"}; _cert.<fingerprint> -> {"node"}. Read from the role's cache, written soon.
Errors  ApiError from `settle` alone; what could not be written is tried again.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS
from edgesite.net import pem
from edgesite.wire.delivery import version_number

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.cloud.edgecontroller import EdgeObjects
    from edgesite.context import Clock
    from edgesite.net.http import PeerInfo

__all__ = ["BARRED", "LEGACY_NAME", "NODE_PREFIX", "Identities", "is_barred"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
NODE_PREFIX: Final = "system:node:"
LEGACY_NAME: Final = "kubeedge.io"  #: common name of KubeEdge's edges before v1.16
BARRED: Final = "edgesite.kubeedge.io/barred"
_NAMESPACE: Final = "kubeedge"
_NAME: Final = "edge-identities-"
_CERTIFICATE: Final = "_cert."  #: no node's name has an underscore
_KEPT: Final = 4  #: certificates of a node that was barred once
_SOON_S: Final = 1.0
_AGAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """Of a node: ``uid`` of its Node as last seen, whether its older certificates are ``barred``, the ``certificates`` that count
    though, whether it has ``held`` one. Of a certificate: ``node``."""

    uid: str = ""
    barred: bool = False
    certificates: tuple[str, ...] = ()
    node: str = ""
    held: bool = False

    def to_json(self) -> str:
        members = {name: getattr(self, name) for name in ("uid", "barred", "certificates", "node", "held")}
        return json.dumps({name: value for name, value in members.items() if value}).decode()


def is_barred(node: dict[str, Any] | None) -> bool:
    """Whether an administrator has barred this Node."""
    return node is not None and (node["metadata"].get("annotations") or {}).get(BARRED) == "true"


class Identities:
    """``objects`` gives the role's caches, or None while they are away: then only what is known already is judged by."""

    def __init__(
        self, client: Client, objects: Callable[[], EdgeObjects | None], clock: Clock, draw: random.Random, log: Log
    ) -> None:
        self._client = client
        self._objects = objects
        self._clock = clock
        self._random = draw
        self._log = log
        self._entries: dict[str, _Entry] = {}
        self._unsaved: dict[str, None] = {}
        self._wrote: dict[
            str, int
        ] = {}  # ConfigMap -> its version that we wrote: an older one in the cache tells nothing
        self._changed = anyio.Event()

    # -- who may come --------------------------------------------------------------------------------------------

    def refusal(self, node: str, peer: PeerInfo) -> str:
        """Return why this peer may not come as ``node``; "" if it may."""
        if peer.common_name not in (NODE_PREFIX + node, LEGACY_NAME):
            return "the certificate is another node's"
        shown = _fingerprint(peer)
        if peer.common_name == LEGACY_NAME:
            owner = self._read(_CERTIFICATE + shown).node
            if owner and owner != node:
                return "the certificate is another node's"
            if not owner and self.is_taken(node):
                return "the certificate names no node, and this node has one of its own"
        objects = self._objects()
        if objects is not None and is_barred(objects.nodes.get(node)):
            return "the node is barred"
        entry = self._current(node)
        if entry.barred and shown not in entry.certificates:
            return "the node was deleted or has joined anew since: it needs a new certificate, by a join token"
        return ""

    def _current(self, node: str) -> _Entry:
        """What is known of the node, barred if it was deleted while nobody looked."""
        entry, objects = self._read(node), self._objects()
        if objects is not None and entry.uid:
            live = objects.nodes.get(node)
            if live is None or live["metadata"].get("uid") != entry.uid:
                self.ended(node)
                return self._read(node)
        return entry

    def is_taken(self, node: str) -> bool:
        """Whether the node exists and has had a certificate."""
        entry = self._read(node)
        objects = self._objects()
        if not (entry.held or entry.uid):
            return False
        if objects is None:
            return True  # better asked again than given to another
        live = objects.nodes.get(node)
        return live is not None and entry.uid in ("", live["metadata"].get("uid"))

    def came(self, node: str, peer: PeerInfo) -> None:
        """The node is admitted with what it has shown."""
        if peer.common_name == LEGACY_NAME:
            self._write(_CERTIFICATE + _fingerprint(peer), _Entry(node=node))
        if not self._read(node).held:
            self._write(node, replace(self._read(node), held=True))
        self.look(node)

    def look(self, node: str) -> None:
        """Remember the Node of a connected node."""
        objects = self._objects()
        live = objects.nodes.get(node) if objects is not None else None
        if live is not None:
            self._write(node, replace(self._read(node), uid=str(live["metadata"].get("uid") or "")))

    def ended(self, node: str) -> None:
        """The Node was deleted."""
        self._write(node, _Entry(barred=True))

    # -- certificates --------------------------------------------------------------------------------------------

    async def issued(self, node: str, certificate: bytes, *, is_legacy: bool, replaces: bool = False) -> None:
        """A certificate was made for whoever showed a join token or the one before; on return that is on disk if it matters.
        ``replaces``: the ones that the node had count no more. Raises ApiError."""
        shown = pem.fingerprint(certificate)
        if is_legacy and node:
            self._write(_CERTIFICATE + shown, _Entry(node=node))
        entry = replace(self._current(node), held=True)
        if replaces:
            entry = replace(entry, barred=True, certificates=())
        if entry.barred:
            entry = replace(entry, certificates=(*entry.certificates, shown)[-_KEPT:])
        if node:
            self._write(node, entry)
        await self.settle()

    # -- where they are kept -------------------------------------------------------------------------------------

    def _read(self, key: str) -> _Entry:
        if key in self._unsaved:
            return self._entries[key]
        objects = self._objects()
        if objects is None:
            return self._entries.get(key, _Entry())
        shard = objects.configs["configmap"][0].get(_shard(key), _NAMESPACE) or {}
        text = (shard.get("data") or {}).get(key)
        version = version_number((shard.get("metadata") or {}).get("resourceVersion"))
        if text is not None and version >= self._wrote.get(_shard(key), 0):
            self._entries[key] = _parsed(text)
        return self._entries.get(key, _Entry())

    def _write(self, key: str, entry: _Entry) -> None:
        if self._read(key) != entry:
            self._entries[key] = entry
            self._unsaved[key] = None
            self._changed.set()

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            if not self._unsaved:
                self._changed = anyio.Event()
                await self._changed.wait()
            await self._clock.sleep(_SOON_S)
            try:
                await self.settle()
            except ApiError as exc:
                self._log.warning("the identities of nodes cannot be saved: %s", exc)
                await self._clock.sleep(_AGAIN_S * (0.5 + self._random.random()))

    async def settle(self) -> None:
        """Write what has changed. Raises ApiError; then it is written later."""
        pending, self._unsaved = self._unsaved, {}
        shards: dict[str, dict[str, str]] = {}
        for key in pending:
            shards.setdefault(_shard(key), {})[key] = self._entries[key].to_json()
        try:
            for name, data in shards.items():
                await self._save(name, data)
        except BaseException:
            self._unsaved = {**pending, **self._unsaved}
            raise

    async def _save(self, name: str, data: dict[str, str]) -> None:
        try:
            written = await self._client.patch(CONFIG_MAPS, name, {"data": data}, _NAMESPACE)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            metadata = {"name": name, "namespace": _NAMESPACE}
            written = await self._client.create(
                CONFIG_MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data}
            )
        self._wrote[name] = version_number(written["metadata"].get("resourceVersion"))


def _shard(key: str) -> str:
    return f"{_NAME}{zlib.crc32(key.encode()) & 0xF:x}"


def _fingerprint(peer: PeerInfo) -> str:
    return pem.fingerprint(peer.certificate_der) if peer.certificate_der is not None else ""


def _parsed(text: str) -> _Entry:
    try:
        members = json.loads(text)
        return _Entry(
            uid=str(members.get("uid", "")),
            barred=bool(members.get("barred")),
            certificates=tuple(str(one) for one in members.get("certificates", ())),
            node=str(members.get("node", "")),
            held=bool(members.get("held")),
        )
    except (json.InvalidJson, AttributeError, TypeError):
        return _Entry()
