"""Namespaces: their own finalizers, phases, and those that stay for ever.

Errors  ApiError.
State   None.
Source  Kubernetes: Namespaces; API reference (NamespaceSpec.finalizers, /finalize).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import errors

__all__ = ["IMMORTAL", "NAME_LABEL", "NamespaceStrategy"]

Object = dict[str, Any]
IMMORTAL: Final = frozenset({"default", "kube-system", "kube-public"})
NAME_LABEL: Final = "kubernetes.io/metadata.name"
_OWN: Final = "kubernetes"


@dataclass(slots=True)
class NamespaceStrategy(Strategy):
    def prepare_create(self, write: Write, obj: Object) -> None:
        obj["status"] = {"phase": "Active"}
        spec = obj.setdefault("spec", {})
        finalizers = list(spec.get("finalizers") or ())
        spec["finalizers"] = finalizers if _OWN in finalizers else [*finalizers, _OWN]
        self._label(obj)

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        Strategy.prepare_update(self, write, old, new)
        new["spec"] = {**(new.get("spec") or {}), "finalizers": (old.get("spec") or {}).get("finalizers") or []}
        self._label(new)

    def prepare_other(self, write: Write, old: Object, new: Object) -> None:
        """Through /finalize only the finalizers change."""
        finalizers = (new.get("spec") or {}).get("finalizers")
        Strategy.prepare_update(self, write, old, new)
        new["spec"] = {**(old.get("spec") or {}), "finalizers": finalizers or []}
        if not finalizers:
            del new["spec"]["finalizers"]

    def _label(self, obj: Object) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}

    def validate_delete(self, write: Write, obj: Object) -> None:
        if write.name in IMMORTAL:
            raise errors.forbidden("namespaces", write.name, "this namespace may not be deleted")

    def keeps(self, obj: Object) -> bool:
        return bool((obj.get("spec") or {}).get("finalizers"))

    def terminate(self, write: Write, obj: Object) -> None:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
