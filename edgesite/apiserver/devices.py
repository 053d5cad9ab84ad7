"""Devices in the embedded API: their schema and printer, and who refuses a bad one.

Both versions are served from the start, with a conversion of our own; a CustomResourceDefinition of KubeEdge's that is applied
besides is kept, and changes nothing.

Errors  ApiError Invalid with the path of the field, in the version that was sent.
State   None.
Source  KubeEdge v1.15, devices.kubeedge.io; its admission webhook since v1.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import json
from edgesite.kube.devices import GROUP, to_v1beta1
from edgesite.kube.resources import DEVICE_MODELS, DEVICES

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.kube.customresources import CustomKind
    from edgesite.kube.resources import Resource
    from edgesite.kube.schema import Schemas
    from edgesite.store.store import Store

__all__ = ["DeviceAdmission", "DeviceStrategy", "device_schemas"]

Object = dict[str, Any]


def device_schemas(schemas: Schemas) -> dict[tuple[str, str], CustomKind]:
    """Return the schemas of both kinds in both versions, by plural and version."""
    from edgesite.kube.customresources import CustomKind, kinds_of
    from edgesite.kube.devices import printing
    from edgesite.kube.devices.crds import definitions

    made = {}
    for definition in definitions():
        printer = printing.DEVICE if definition["spec"]["names"]["kind"] == "Device" else printing.MODEL
        for one in kinds_of(definition, schemas):
            made[one.row.plural, one.row.version] = CustomKind(one.row, one.schema, printer, None)
    return made


@dataclass(slots=True)
class DeviceStrategy(Strategy):
    """The status is written with the object, by users too, as in KubeEdge; the generation counts changes of what is wanted alone."""

    unconditional_update: bool = False

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        if to_v1beta1(new).get("spec") != to_v1beta1(old).get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


class DeviceAdmission:
    """Looks at devices and models whose spec is new. What was stored before a model changed may stay as it is."""

    name = "Devices"
    mutating = False

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._models = kinds.of(DEVICE_MODELS)

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        checked = resource.group == GROUP and resource.plural in (DEVICES.plural, DEVICE_MODELS.plural)
        return checked and operation in ("CREATE", "UPDATE") and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Invalid)."""
        from edgesite.kube.devices import judgement

        obj, kind = request.object or {}, request.resource.kind
        if not judgement.is_looked_at(obj, request.old_object):
            return
        model = None if kind == DEVICE_MODELS.kind else self._model_of(obj, request.namespace)
        error, warnings = judgement.judged(kind, obj["metadata"].get("name") or request.name, obj, model)
        request.warnings.extend(warnings)
        if error is not None:
            raise error

    def _model_of(self, device: Object, namespace: str) -> Object | None:
        from edgesite.kube.devices import judgement

        row = self._store.latest(self._models.key(namespace, judgement.model_name(device)))
        if row is None:
            return None
        model: Object = json.loads(row.value)
        return None if model["metadata"].get("deletionTimestamp") else model
