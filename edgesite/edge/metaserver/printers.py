"""The columns in which custom kinds are shown, by their CustomResourceDefinitions, which are kept here for when there is no link.

The definition of a kind is fetched when the kind is first used, and now and then while it is used: with the rights of whoever uses it. Where
those do not suffice, or the definition was never read, tables made here have the name and the age.

Units   Seconds.
Errors  None leave but cancellation.
State   Columns of the kinds that were shown; definitions are in `Replica`.
Source  Kubernetes API concepts (receiving resources as Tables); a definition's name is the kind's plural and group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.metamanager.replica import KindKey, Stored
from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver.cloudlink import CloudLink
from edgesite.edge.metaserver.scopekey import ScopeKey, read_meta, row_of
from edgesite.kube import json
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica
    from edgesite.edge.metaserver.upstream import Upstream
    from edgesite.kube.tablecells import Printer

__all__ = ["Printers"]

KINDS_KEPT: Final = 256
AGAIN_S: Final = 600.0
FETCH_S: Final = 3.0
_DEFINITIONS: Final = KindKey("apiextensions.k8s.io", "v1", "customresourcedefinitions")


class Printers:
    """`run` fetches what `used` has named."""

    def __init__(self, ctx: Context, replica: Replica, link: CloudLink, upstream: Upstream) -> None:
        self._ctx = ctx
        self._replica = replica
        self._link = link
        self._upstream = upstream
        self._known: dict[KindKey, tuple[int, Printer]] = {}
        self._asked: dict[KindKey, float] = {}
        self._wanted: dict[KindKey, str] = {}
        self._changed = anyio.Event()

    def find(self, kind: KindKey) -> Printer | None:
        """A custom kind's own columns, as far as `ready` has found them."""
        found = self._known.get(kind)
        return found[1] if found is not None else None

    def used(self, kind: KindKey, token: str) -> None:
        """Somebody reads objects of this kind."""
        if "." in kind.group and self._is_due(kind) and row_of(kind) is None:
            self._wanted[kind] = token
            self._changed.set()

    def _is_due(self, kind: KindKey) -> bool:
        last = self._asked.get(kind)
        return last is None or self._ctx.clock.monotonic() - last >= AGAIN_S

    async def run(self) -> None:
        """Fetch definitions, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            while self._wanted and self._link.connected:
                kind, token = self._wanted.popitem()
                await self._fetch(kind, token)
            self._wanted.clear()

    async def ready(self, kind: KindKey, token: str) -> None:
        """Have the columns of a kind on hand, if they can be had."""
        if "." not in kind.group or row_of(kind) is not None:
            return
        try:
            stored = await self._stored(kind)
            if stored is None and self._link.connected and self._is_due(kind):
                await self._fetch(kind, token)
                stored = await self._stored(kind)
        except StoreError as exc:
            self._ctx.log.error("the definition of %s cannot be read: %s", kind.resource, exc)
            return
        if stored is None:
            self._known.pop(kind, None)
        elif (known := self._known.get(kind)) is None or known[0] != stored.revision:
            self._learn(kind, stored)

    async def _stored(self, kind: KindKey) -> Stored | None:
        """Raises StoreError."""
        return await self._replica.get(_DEFINITIONS, "", _name(kind))

    def _learn(self, kind: KindKey, stored: Stored) -> None:
        from edgesite.kube.customprinters import printer_of  # only people ask for tables

        versions = json.loads(stored.value).get("spec", {}).get("versions") or ()
        version = next((one for one in versions if one.get("name") == kind.version), None)
        if version is not None:
            while len(self._known) >= KINDS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[kind] = stored.revision, printer_of(version)

    async def _fetch(self, kind: KindKey, token: str) -> None:
        while len(self._asked) >= KINDS_KEPT:
            del self._asked[next(iter(self._asked))]
        self._asked[kind] = self._ctx.clock.monotonic()
        target = f"{ScopeKey(_DEFINITIONS).path()}/{_name(kind)}"
        try:
            with anyio.fail_after(FETCH_S):
                status, _, body = await self._upstream.request(None, "GET", target, "application/json", token)
            meta = read_meta(body) if status == 200 else None
        except (ApiError, TimeoutError, json.InvalidJson) as exc:
            self._asked.pop(kind, None)
            self._ctx.log.debug("the definition of %s is not on hand: %s", _name(kind), exc)
            return
        if meta is not None:
            self._replica.put(_DEFINITIONS, Stored("", meta.name, meta.revision, body))


def _name(kind: KindKey) -> str:
    return f"{kind.resource}.{kind.group}"
