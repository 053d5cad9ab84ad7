"""CustomResourceDefinitions turned into what is served: rows, schemas, printers, scale paths.

    for kind in kinds_of(crd, schemas): …      one for each served version; the first is the one that objects are stored in
    status = established(crd, now, taken)      the status of a CRD that is accepted, or why it is not

Several versions of one resource differ in their apiVersion alone (conversion strategy None): `conversion` does that.

Units   ``now`` is seconds since the Unix epoch.
Errors  None raised: a selectable field whose path is not understood is left out.
State   None.
Source  apiextensions.k8s.io/v1: names, versions, subresources, additionalPrinterColumns, selectableFields, conditions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgesite.kube import times
from edgesite.kube.customprinters import printer_of
from edgesite.kube.resourcetable import Resource
from edgesite.kube.schema import Schemas
from edgesite.kube.schema_custom import CustomSchema
from edgesite.kube.tablecells import Printer

__all__ = ["CustomKind", "established", "kinds_of"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CustomKind:
    """One served version of a custom resource. The methods of its schema are its own."""

    row: Resource
    schema: CustomSchema
    printer: Printer
    scale: tuple[str, str, str] | None  #: paths of spec replicas, status replicas and label selector ("": none)

    @property
    def definition(self) -> str:
        return self.schema.definition

    def decode(self, obj: Any) -> tuple[Object, list[str]]:
        """Raises ApiError (400)."""
        return self.schema.decode(obj)

    def default(self, obj: Object) -> None:
        self.schema.default(obj)

    def validate(self, obj: Object) -> list[dict[str, str]]:
        return self.schema.validate(obj)


def kinds_of(crd: Object, schemas: Schemas) -> list[CustomKind]:
    """The kinds that a valid CRD asks for, the stored version first. Their definitions are registered in ``schemas``."""
    spec = crd["spec"]
    versions = [one for one in spec["versions"] if one.get("served")]
    stored = next((one["name"] for one in spec["versions"] if one.get("storage")), "")
    versions.sort(key=lambda one: (one["name"] != stored, _age(one["name"])))
    plural = spec["names"]["plural"]
    owner = (spec["group"], stored, plural) if any(one["name"] == stored for one in versions) else None
    return [_kind(spec, one, owner if one["name"] != stored else None, schemas) for one in versions]


def _age(version: str) -> tuple[int, int, int, str]:
    """Sort newest first: v2, v1, v2beta1, v1alpha1, then what is no such name."""
    if version[:1] != "v" or not version[1:2].isdecimal():
        return (3, 0, 0, version)
    for rank, word in enumerate(("", "beta", "alpha")):
        major, found, minor = version[1:].partition(word) if word else (version[1:], "", "0")
        if major.isdecimal() and (minor or "0").isdecimal() and bool(found) == bool(word):
            return (rank, -int(major), -int(minor or "0"), "")
    return (3, 0, 0, version)


def _kind(spec: Object, version: Object, owner: tuple[str, str, str] | None, schemas: Schemas) -> CustomKind:
    names, subresources = spec["names"], version.get("subresources", {})
    selectable = [
        one["jsonPath"].removeprefix(".") for one in version.get("selectableFields", ()) if one.get("jsonPath")
    ]
    row = Resource(
        spec["group"],
        version["name"],
        names["kind"],
        names["plural"],
        namespaced=spec.get("scope") == "Namespaced",
        singular=names.get("singular", ""),
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        subresources=tuple(name for name in ("scale", "status") if name in subresources),
        list_kind=names.get("listKind", ""),
        selectable=tuple(selectable),
        stored_as=owner,
    )
    schema = CustomSchema(schemas, row, version.get("schema", {}).get("openAPIV3Schema", {}))
    scale = subresources.get("scale")
    paths = None
    if scale is not None:
        paths = (scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))
    return CustomKind(row, schema, printer_of(version), paths)


def established(crd: Object, now: float, taken: str = "") -> Object:
    """Return the status of ``crd``. ``taken`` says which of its names another CRD has, "" if none."""
    spec, before = crd["spec"], crd.get("status", {})
    accepted = not taken
    stored = [one["name"] for one in spec["versions"] if one.get("storage")]
    kept = [one for one in before.get("storedVersions", ()) if one not in stored]
    conditions = [
        _condition(before, "NamesAccepted", accepted, "NoConflicts", "no conflicts found", "NameConflict", taken, now),
        _condition(
            before,
            "Established",
            accepted or _was(before, "Established"),
            "InitialNamesAccepted",
            "the initial names have been accepted",
            "NotAccepted",
            "not all names are accepted",
            now,
        ),
    ]
    names = spec["names"] if accepted else before.get("acceptedNames", {"plural": "", "kind": ""})
    return {"conditions": conditions, "acceptedNames": names, "storedVersions": [*kept, *stored]}


def _was(status: Object, kind: str) -> bool:
    return any(one.get("type") == kind and one.get("status") == "True" for one in status.get("conditions", ()))


def _condition(
    status: Object, kind: str, true: bool, reason: str, message: str, bad_reason: str, bad_message: str, now: float
) -> Object:
    old: Object = next((one for one in status.get("conditions", ()) if one.get("type") == kind), {})
    text = "True" if true else "False"
    changed = old.get("status") != text or not old.get("lastTransitionTime")
    return {
        "type": kind,
        "status": text,
        "lastTransitionTime": times.format_time(now) if changed else old["lastTransitionTime"],
        "reason": reason if true else bad_reason,
        "message": message if true else bad_message,
    }
