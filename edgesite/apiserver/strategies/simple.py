"""Kinds that differ from the default in a rule or two: workloads, secrets, nodes, volumes, CRs and others.

Errors  ApiError.
State   None.
Source  Kubernetes API reference of each kind.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import defaults, defaults_workloads, times

__all__ = [
    "DefinitionStrategy",
    "DeploymentStrategy",
    "EventStrategy",
    "JobStrategy",
    "NodeStrategy",
    "PhaseStrategy",
    "SecretStrategy",
    "WorkloadStrategy",
]

Object = dict[str, Any]
_CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(slots=True)
class WorkloadStrategy(Strategy):
    """Kinds that controllers bring about: a status of required counts alone, metadata untouched by status updates."""

    status_keeps_metadata: bool = True

    def prepare_create(self, write: Write, obj: Object) -> None:
        row = write.kind.resource
        obj["status"] = defaults.new_status(row.group, row.version, row.kind)


@dataclass(slots=True)
class DeploymentStrategy(WorkloadStrategy):
    """A Deployment's annotations belong to what is rolled out, too."""

    status_keeps_metadata: bool = False

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        WorkloadStrategy.prepare_update(self, write, old, new)
        if new["metadata"].get("annotations") != old["metadata"].get("annotations"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


@dataclass(slots=True)
class JobStrategy(WorkloadStrategy):
    """A new Job gets the selector by which it knows its pods."""

    def prepare_create(self, write: Write, obj: Object) -> None:
        WorkloadStrategy.prepare_create(self, write, obj)
        if isinstance((obj.get("spec") or {}).get("template"), dict):
            defaults_workloads.add_job_selector(obj)


@dataclass(slots=True)
class NodeStrategy(Strategy):
    """A kubelet registers its node with a status; the main resource leaves it alone afterwards."""

    status_on_create: bool = True


@dataclass(slots=True)
class SecretStrategy(Strategy):
    """``stringData`` is written into ``data`` and never read back."""

    def prepare_create(self, write: Write, obj: Object) -> None:
        self._fold(obj)

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        self._fold(new)
        if not new.get("type"):
            new["type"] = old.get("type", "Opaque")

    def _fold(self, obj: Object) -> None:
        plain = obj.pop("stringData", None)
        if plain:
            encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
            obj["data"] = {**(obj.get("data") or {}), **encoded}


@dataclass(slots=True)
class DefinitionStrategy(Strategy):
    """A CustomResourceDefinition stays until its objects are gone."""

    unconditional_update: bool = False

    def prepare_create(self, write: Write, obj: Object) -> None:
        Strategy.prepare_create(self, write, obj)
        finalizers = obj["metadata"].get("finalizers") or []
        obj["metadata"]["finalizers"] = [*finalizers, *({_CLEANUP} - set(finalizers))]

    def terminate(self, write: Write, obj: Object) -> None:
        status = obj.setdefault("status", {})
        condition = {"type": "Terminating", "status": "True", "reason": "InstanceDeletionPending"}
        others = [one for one in status.get("conditions") or () if one.get("type") != "Terminating"]
        since = {"lastTransitionTime": times.format_time(write.now_s), "message": "instance deletion is pending"}
        status["conditions"] = [*others, {**condition, **since}]


@dataclass(slots=True)
class EventStrategy(Strategy):
    create_on_update: bool = True


@dataclass(slots=True)
class PhaseStrategy(Strategy):
    """Kinds whose status begins with a phase."""

    phase: str = "Pending"
    returns_deleted: bool = True

    def prepare_create(self, write: Write, obj: Object) -> None:
        obj["status"] = {"phase": self.phase}
