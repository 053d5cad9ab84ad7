"""The strategy of a kind: what a write changes beside what the client asked for. The defaults here suit most kinds.

A strategy is pure but for what it asks of its `Write`: it changes the object in place, before validation.

Errors  ApiError, to refuse.
State   None, unless a strategy says so (allocators).
Source  Kubernetes API conventions (spec and status, generation); API reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesite.apiserver.authn import User
from edgesite.kube import defaults, validation

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.registry import Registry

__all__ = ["Strategy", "Write"]

Object = dict[str, Any]


@dataclass(slots=True)
class Write:
    """One write under way."""

    operation: str  #: CREATE, UPDATE or DELETE
    kind: Kind
    namespace: str
    name: str
    subresource: str
    user: User
    now_s: float
    registry: Registry
    dry_run: bool = False
    manager: str = ""
    field_validation: str = "Warn"
    applied: bool = False  #: by server-side apply: managedFields are made already
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Strategy:
    """Behaviour of one kind. Subclasses override methods; plain variations are fields."""

    status_on_create: bool = False  #: whether a client may create an object with its status
    volatile: bool = False  #: whether a crash may lose the newest state (renewals)
    create_on_update: bool = False
    unconditional_update: bool = True
    returns_deleted: bool = False  #: whether a delete answers with the object rather than with a Status
    default_propagation: str = "Background"
    status_keeps_metadata: bool = False  #: whether a status update leaves labels, annotations and finalizers alone

    def prepare_create(self, write: Write, obj: Object) -> None:
        """Change a new object before it is validated."""
        if not self.status_on_create and "status" in write.kind.resource.subresources:
            obj.pop("status", None)
            row = write.kind.resource
            if status := defaults.new_status(row.group, row.version, row.kind):
                obj["status"] = status  # generated clients refuse an object without its required counts

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        """Change an updated object: what the main resource may not touch comes from ``old``."""
        if "status" in write.kind.resource.subresources:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)
        if validation.bumps_generation(write.kind.resource, new, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def prepare_status(self, write: Write, old: Object, new: Object) -> None:
        """Change an object updated through /status: only status, and perhaps metadata, come from ``new``."""
        for key in [key for key in new if key not in ("metadata", "status", "kind", "apiVersion")]:
            del new[key]
        new.update({key: value for key, value in old.items() if key not in ("metadata", "status")})
        if self.status_keeps_metadata:
            managed = new["metadata"].get("managedFields")
            new["metadata"] = dict(old["metadata"])
            if managed is not None:
                new["metadata"]["managedFields"] = managed

    def prepare_other(self, write: Write, old: Object, new: Object) -> None:
        """Change an object updated through any other subresource that holds the object itself."""
        self.prepare_update(write, old, new)

    def validate_delete(self, write: Write, obj: Object) -> None:
        """Refuse a deletion. Raises ApiError."""

    def grace_s(self, write: Write, obj: Object, asked: int | None) -> int | None:
        """Seconds between the mark and the deletion; None where the kind knows no grace."""
        return None

    def keeps(self, obj: Object) -> bool:
        """Whether a marked object without finalizers still has to stay (namespaces have finalizers of their own)."""
        return False

    def terminate(self, write: Write, obj: Object) -> None:
        """Change an object that was just marked as deleted."""

    def settle(self, before: Object | None, after: Object | None) -> None:
        """What a write takes from allocators is settled: ``before`` was stored, ``after`` is. After a failed write, the other way round."""
