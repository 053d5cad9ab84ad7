"""Who owns what: indexes by controller, and adopting and releasing by selector.

Errors  ApiError from the API.
State   None; the indexes are the informers'.
Source  Kubernetes' rules for controllerRef: at most one controller; adopt what matches and has none, release what no longer matches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from edgesite.controlplane.pods import controller_of, is_terminating
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.client import Client, Informer
    from edgesite.kube.resources import Resource
    from edgesite.kube.selectors import LabelSelector

__all__ = ["Claimer", "index_by_controller", "orphans", "owned_by", "reference_to"]

Object = dict[str, Any]


def index_by_controller(informer: Informer) -> None:
    """Let `owned_by` and `orphans` look things up in this informer."""
    informer.add_index("controller", _controller)
    informer.add_index("orphan", _orphan)


def _controller(obj: Object) -> Iterable[str]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner else ()


def _orphan(obj: Object) -> Iterable[str]:
    return () if controller_of(obj) else (obj["metadata"].get("namespace") or "",)


def owned_by(informer: Informer, uid: str) -> list[Object]:
    """Return the cached objects whose controller has this uid."""
    return informer.by_index("controller", uid)


def orphans(informer: Informer, namespace: str) -> list[Object]:
    """Return the cached objects of a namespace that no controller owns."""
    return informer.by_index("orphan", namespace)


def reference_to(owner: Object, resource: Resource) -> Object:
    """Return the owner reference that makes ``owner`` the controller of an object."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Claimer:
    """Settles which objects belong to one owner."""

    def __init__(self, client: Client, owner: Object, owner_resource: Resource, selector: LabelSelector) -> None:
        self._client = client
        self._owner, self._resource = owner, owner_resource
        self._selector = selector
        self._may_adopt: bool | None = None

    async def claim(self, informer: Informer) -> list[Object]:
        """Return what the owner owns now, after adopting and releasing. Raises ApiError."""
        meta = self._owner["metadata"]
        claimed = []
        for obj in owned_by(informer, meta["uid"]):
            if obj["metadata"].get("namespace") != meta.get("namespace"):
                continue
            if self._selector.matches(obj["metadata"].get("labels")):
                claimed.append(obj)
            elif not is_terminating(self._owner):
                await self._patch(informer.resource, obj, self._release)
        if is_terminating(self._owner):
            return claimed
        for obj in orphans(informer, meta.get("namespace") or ""):
            wanted = self._selector.matches(obj["metadata"].get("labels")) and not is_terminating(obj)
            if wanted and await self._may(self._check) and await self._patch(informer.resource, obj, self._adopt):
                claimed.append(obj)
        return claimed

    async def _may(self, check: Callable[[], Awaitable[bool]]) -> bool:
        if self._may_adopt is None:
            self._may_adopt = await check()
        return self._may_adopt

    async def _check(self) -> bool:
        """Ask the API, not the cache: an owner that is being deleted must not adopt."""
        meta = self._owner["metadata"]
        try:
            live = await self._client.get(self._resource, meta["name"], meta.get("namespace", ""))
        except ApiError as exc:
            if exc.code == 404:
                return False
            raise
        return live["metadata"]["uid"] == meta["uid"] and not is_terminating(live)

    async def _patch(self, resource: Resource, obj: Object, change: Callable[[list[Object]], list[Object]]) -> bool:
        """Write new owner references over exactly the version that was looked at; False if the object is gone or changed."""
        meta = obj["metadata"]
        patch = {
            "metadata": {
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": change(list(meta.get("ownerReferences") or ())),
            }
        }
        try:
            await self._client.patch(resource, meta["name"], patch, meta.get("namespace", ""))
        except ApiError as exc:
            if exc.code in (404, 409, 422):  # its change will come by the watch
                return False
            raise
        return True

    def _adopt(self, references: list[Object]) -> list[Object]:
        return [*references, reference_to(self._owner, self._resource)]

    def _release(self, references: list[Object]) -> list[Object]:
        return [one for one in references if one.get("uid") != self._owner["metadata"]["uid"]]
