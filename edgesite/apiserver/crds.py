"""Custom resources: each established CustomResourceDefinition becomes rows of the table of kinds, and leaves it with its objects.

Level-driven: whatever happened to a CRD, its newest state decides. At start all stored CRDs are served before the first request.

Errors  None: what cannot be served is told in the CRD's status, or logged and tried again.
State   Which CRDs are served in which form.
Source  Kubernetes: Custom resources; apiextensions.k8s.io/v1 (conditions, the cleanup finalizer).
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver.bootstrap import SYSTEM_USER
from edgesite.apiserver.conversion import conversions
from edgesite.apiserver.kinds import Kind, prefix_of
from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.options import DeleteOptions
from edgesite.kube.resources import CUSTOM_RESOURCE_DEFINITIONS
from edgesite.store import StoreError

if TYPE_CHECKING:
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.watch import Watches
    from edgesite.kube.customresources import CustomKind

__all__ = ["CLEANUP", "CustomResources"]

logger = logging.getLogger(__name__)
Object = dict[str, Any]
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
AGAIN_S: Final = 1.0  #: between looks at objects that are not gone yet, and after a failure
MANAGER: Final = "kube-apiserver"


@dataclass(frozen=True, slots=True)
class _Served:
    spec: Object
    kinds: tuple[CustomKind, ...]
    prefix: str


class CustomResources:
    """Brings CRDs and the table of kinds together."""

    def __init__(self, registry: Registry, watches: Watches) -> None:
        self._registry = registry
        self._watches = watches
        self._crds = registry.kinds.of(CUSTOM_RESOURCE_DEFINITIONS)
        self._builtin = {(kind.resource.group, kind.resource.plural) for kind in registry.kinds}
        self._served: dict[str, _Served] = {}

    def load(self) -> None:
        """Serve all that were established when the process last ran."""
        for row in self._registry.store.list(self._crds.prefix).rows:
            crd = json.loads(row.value)
            if not _is(crd, "Established"):
                continue
            try:
                self._serve(crd)
            except Exception:  # one that cannot be served must not keep all others, and the API, from coming up
                logger.exception("CustomResourceDefinition %s cannot be served", crd["metadata"]["name"])

    async def run(self) -> None:
        """Serve until cancelled."""
        pending = {self._name(row.key) for row in self._registry.store.list(self._crds.prefix).rows}
        while True:
            with self._registry.store.watch(self._crds.prefix) as watch:
                pending |= {self._name(row.key) for row in self._registry.store.list(self._crds.prefix).rows}
                pending |= set(self._served)
                try:
                    while True:
                        pending = {name for name in sorted(pending) if not await self._settle(name)}
                        with anyio.move_on_after(AGAIN_S if pending else None):
                            pending |= {self._name(event.row.key) for event in await watch.batch()}
                except StoreError as exc:
                    logger.debug("reading all CustomResourceDefinitions again: %s", exc)
            await self._registry.clock.sleep(AGAIN_S)

    def _name(self, key: str) -> str:
        return key[len(self._crds.prefix) :]

    async def _settle(self, name: str) -> bool:
        """Bring one CRD where it should be; False if that takes more time."""
        row = self._registry.store.get(self._crds.key("", name))
        if row is None:
            self._withdraw(name)
            return True
        crd = json.loads(row.value)
        try:
            if crd["metadata"].get("deletionTimestamp"):
                return await self._clean_up(crd)
            return await self._establish(crd)
        except ApiError as exc:
            logger.warning("CustomResourceDefinition %s: %s", name, exc.message)
            return False
        except StoreError:
            raise
        except Exception:  # only a change of it can help, and all others go on
            logger.exception("CustomResourceDefinition %s cannot be served", name)
            return True

    # serving

    async def _establish(self, crd: Object) -> bool:
        from edgesite.kube.customresources import established  # sites without custom resources need none of it

        taken = self._taken(crd)
        status = established(crd, self._registry.clock.time(), taken)
        if status != crd.get("status"):
            await self._write(crd, "status", lambda new: new.update(status=status))
        if not taken or _is(crd, "Established"):
            self._serve(crd)
        return True

    def _taken(self, crd: Object) -> str:
        """Which names belong to another kind of the same group; "" if none does."""
        spec = crd["spec"]
        own = prefix_of(spec["group"], spec["names"]["plural"])
        for kind in self._registry.kinds:
            row = kind.resource
            if row.group != spec["group"] or kind.prefix == own:
                continue
            for field, value in (("kind", row.kind), ("singular", row.singular_name), ("listKind", row.list_name)):
                if spec["names"].get(field) == value:
                    return f'"{value}" is already in use'
        return ""

    def _serve(self, crd: Object) -> None:
        """Put the rows of a CRD into the table, in place of those of its former state."""
        name, spec = crd["metadata"]["name"], crd["spec"]
        known = self._served.get(name)
        if known is not None and known.spec == spec:
            return
        if (spec["group"], spec["names"]["plural"]) in self._builtin:
            return  # served from the start, with a schema of its own
        if known is not None:
            self._retire(known)
        from edgesite.kube.customresources import kinds_of

        made = tuple(kinds_of(crd, self._registry.scheme.schemas))
        prefix = prefix_of(spec["group"], spec["names"]["plural"])
        self._registry.kinds.remove(spec["group"], spec["names"]["plural"])
        if made:
            stored = made[0].row
            strategy = Strategy(unconditional_update=False, status_keeps_metadata=True)
            kinds = []
            for one in made:
                into, out = conversions(one.row, stored)
                kinds.append(Kind(one.row, strategy, prefix, stored, one.definition, into, out, one))
            self._registry.kinds.add(kinds)
        self._served[name] = _Served(spec, made, prefix)

    def _retire(self, served: _Served) -> None:
        for one in served.kinds:
            one.schema.unregister()
            self._registry.scheme.managers.forget(one.definition)

    def _withdraw(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is not None:
            self._retire(served)
            self._registry.kinds.remove(served.spec["group"], served.spec["names"]["plural"])
            self._watches.end_below(served.prefix)

    # leaving

    async def _clean_up(self, crd: Object) -> bool:
        """Delete the objects of a CRD that goes, then let it go; False while there are still some."""
        metadata, names = crd["metadata"], crd["spec"]["names"]
        if CLEANUP not in (metadata.get("finalizers") or ()):
            return True
        kind = self._registry.kinds.stored_at(prefix_of(crd["spec"]["group"], names["plural"]))
        if kind is not None and (crd["spec"]["group"], names["plural"]) not in self._builtin:
            for row in self._registry.store.list(kind.prefix).rows:
                await self._delete(kind, *kind.names_of(row.key))
            if self._registry.store.count(kind.prefix):
                return False
        kept = [one for one in metadata["finalizers"] if one != CLEANUP]
        await self._write(crd, "", lambda new: new["metadata"].update(finalizers=kept))
        return True

    async def _delete(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            await self._registry.delete(self._begin("DELETE", kind, namespace, name, ""), DeleteOptions())
        except ApiError as exc:
            if exc.code != 404:
                raise

    async def _write(self, crd: Object, subresource: str, edit: Any) -> None:
        """Change a CRD as it was seen; if it changed meanwhile its next event brings us back. Raises ApiError."""

        def change(old: Object) -> Object:
            new = copy.deepcopy(old)
            edit(new)
            return new

        write = self._begin("UPDATE", self._crds, "", crd["metadata"]["name"], subresource)
        try:
            await self._registry.change(write, change, required=crd["metadata"]["resourceVersion"])
        except ApiError as exc:
            if exc.code not in (404, 409):
                raise

    def _begin(self, operation: str, kind: Kind, namespace: str, name: str, subresource: str) -> Write:
        now_s = self._registry.clock.time()
        return Write(operation, kind, namespace, name, subresource, SYSTEM_USER, now_s, self._registry, manager=MANAGER)


def _is(crd: Object, condition: str) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == condition and one.get("status") == "True" for one in conditions)
