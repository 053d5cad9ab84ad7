"""`Meta`: how modules of the edge read objects and report to the cloud. Provided by module ``metamanager``.

Reads are served from disk and never wait for the cloud, except `query_remote`. Reports (`report_status`, `report_event`,
`confirm_deleted`) return at once and are delivered in order when there is a link; of several states of one object only the
last is delivered. `insert`, `update` and `patch` need the cloud's answer and fail at once without a link.

Changes arrive on the bus: whoever joins group "edged" receives ``insert``, ``update`` and ``delete`` messages of pods,
configmaps and secrets after they were stored; `Message.object` is the object (of a delete perhaps its metadata alone).

Type words: pod, configmap, secret, node, lease, persistentvolume, persistentvolumeclaim, volumeattachment. The namespace of
cluster-scoped objects is ""; leases of nodes are in "kube-node-lease".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from edgesite.wire.delivery import ObjectRef

__all__ = ["Holdings", "Meta"]


class Holdings(Protocol):
    """What is stored here of what the cloud sent; edgehub tells it to the cloud when it connects."""

    async def holdings(self) -> Sequence[ObjectRef]: ...

    async def forget(self, uids: Iterable[str]) -> None:
        """The cloud was restored from a backup and knows less than is stored here: take its word on these objects, whatever
        their versions, and even if they have ended. Raises ApiError when the disk fails."""
        ...


class Meta(Protocol):
    """Objects are API objects as plain dicts; what is returned is the caller's own copy."""

    @property
    def connected(self) -> bool:
        """Whether there is a link to the cloud now."""
        ...

    async def wait_connected(self) -> None:
        """Return as soon as there is a link."""
        ...

    async def get(self, type: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The object as stored here, or None."""
        ...

    async def list(self, type: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """All stored objects of a type; of every namespace if that is None. At start this is the full set of pods."""
        ...

    def has_ended(self, uid: str) -> bool:
        """Whether the end of the object with this uid is on record here. After a loss of the database nothing is."""
        ...

    async def query_remote(
        self, type: str, namespace: str, name: str, content: Any = None, *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Ask the cloud, and store its answer. Without a link, or when it does not answer in time, the stored object.

        Raises ApiError: NotFound when the cloud says so; Forbidden; ServiceUnavailable (503) when neither side has it now.
        """
        ...

    async def token(self, namespace: str, service_account: str, request: dict[str, Any]) -> dict[str, Any]:
        """A service account token: ``request`` is a TokenRequest, returned with its status. A stored one serves while
        it has more than a fifth of its life left, and until its end while there is no link. Raises ApiError."""
        ...

    async def insert(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Create a node or a lease in the cloud; returns it as created. Raises ApiError (AlreadyExists; 503 without a link)."""
        ...

    async def update(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Update a lease, or a node's labels and annotations; returns it as stored. Raises ApiError (Conflict, NotFound, 503)."""
        ...

    async def patch(
        self, type: str, namespace: str, name: str, patch: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Apply a strategic merge patch to the status of a "node", "pod" or "persistentvolumeclaim" now; returns the object.
        Raises ApiError."""
        ...

    # Reports: without a link they are on disk on return; with one they are in memory until the cloud has answered, and
    # are written down if the link breaks or the program stops before that. Report again after a start.

    async def report_status(self, type: str, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Keep a strategic merge patch of the status of a "pod" or "node" and deliver it as soon as possible.

        It replaces one that still waits for the same object, so it must hold the whole status. A pod's patch has
        ``metadata.uid``, so that it never reaches a later pod of the same name.
        """
        ...

    async def report_event(self, event: dict[str, Any]) -> None:
        """Keep an Event (v1, with name and namespace) and deliver it. Beyond a bound the oldest waiting events are dropped."""
        ...

    async def confirm_deleted(self, namespace: str, name: str, uid: str) -> None:
        """Tell the cloud that a terminating pod has ended here: it is deleted there with grace 0 and this uid."""
        ...
