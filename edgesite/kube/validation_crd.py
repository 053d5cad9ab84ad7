"""Validation of CustomResourceDefinitions: names, versions, and that schemas are structural.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of apiextensions.k8s.io/v1.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import names
from edgesite.kube.causes import Causes

__all__ = ["check_crd", "check_crd_update"]

Object = dict[str, Any]
_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_KEPT: Final = "x-kubernetes-preserve-unknown-fields"
_EITHER: Final = "x-kubernetes-int-or-string"
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")


def check_crd(causes: Causes, crd: Object) -> None:
    spec = crd.get("spec", {})
    group, given = spec.get("group", ""), spec.get("names", {})
    if crd.get("metadata", {}).get("name") != f"{given.get('plural', '')}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        causes.invalid("metadata.name", crd.get("metadata", {}).get("name", ""), detail)
    if not group:
        causes.required("spec.group")
    elif "." not in group:
        causes.invalid("spec.group", group, "should be a domain with at least one dot")
    else:
        causes.each("spec.group", group, names.dns1123_subdomain_problems(group))
    causes.choice("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    for field in ("plural", "singular", "kind", "listKind"):
        value = given.get(field, "")
        if not value:
            causes.required(f"spec.names.{field}")
        else:
            causes.each(f"spec.names.{field}", value, names.dns1035_label_problems(value.lower()))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        causes.invalid("spec.names.listKind", given["listKind"], "kind and listKind may not be the same")
    strategy = spec.get("conversion", {}).get("strategy")
    if strategy not in (None, "None", "Webhook"):
        causes.not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
    _check_versions(causes, spec.get("versions", []))


def check_crd_update(causes: Causes, new: Object, old: Object) -> None:
    """What may not change in a CRD that is established."""
    for field in ("group", "scope"):
        causes.unchanged(f"spec.{field}", new.get("spec", {}).get(field), old.get("spec", {}).get(field))
    for field in ("kind", "plural"):
        after, before = (one.get("spec", {}).get("names", {}).get(field) for one in (new, old))
        causes.unchanged(f"spec.names.{field}", after, before)
    present = {one.get("name") for one in new.get("spec", {}).get("versions", ())}
    for index, name in enumerate(new.get("status", {}).get("storedVersions", ())):
        if name not in present:
            detail = "missing from spec.versions; it was previously a storage version, and must remain in spec.versions until "
            detail += "a storage migration ensures no data remains persisted in this version and removes it from status.storedVersions"
            causes.invalid(f"status.storedVersions[{index}]", name, detail)


def _check_versions(causes: Causes, versions: list[Object]) -> None:
    if not versions:
        causes.required("spec.versions")
        return
    if sum(bool(one.get("storage")) for one in versions) != 1:
        causes.invalid("spec.versions", versions, "must have exactly one version marked as storage version")
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name", "")
        causes.each(f"{path}.name", name, names.dns1035_label_problems(name))
        if name in seen:
            causes.invalid("spec.versions", versions, "must contain unique version names")
        seen.add(name)
        schema = version.get("schema", {}).get("openAPIV3Schema")
        at = f"{path}.schema.openAPIV3Schema"
        if not isinstance(schema, dict):
            causes.required(at, "schemas are required")
        else:
            if schema.get("type") != "object":
                causes.invalid(f"{at}.type", schema.get("type", ""), "must be object at the root")
            _check_structure(causes, at, schema)
        _check_subresources(causes, f"{path}.subresources", version.get("subresources", {}))
        for number, column in enumerate(version.get("additionalPrinterColumns", ())):
            here = f"{path}.additionalPrinterColumns[{number}]"
            if not column.get("name"):
                causes.required(f"{here}.name")
            if column.get("type") not in _COLUMN_TYPES:
                detail = f"must be one of {','.join(_COLUMN_TYPES)}"
                causes.invalid(f"{here}.type", column.get("type", ""), detail)
            if not column.get("jsonPath"):
                causes.required(f"{here}.jsonPath")


def _check_subresources(causes: Causes, path: str, subresources: Object) -> None:
    scale = subresources.get("scale")
    if scale is None:
        return
    for field, prefix in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(field, "")
        if not value:
            causes.required(f"{path}.scale.{field}")
        elif not value.startswith(prefix):
            causes.invalid(f"{path}.scale.{field}", value, f"should be a json path under {prefix[:-1]}")


def _check_structure(causes: Causes, path: str, schema: Object) -> None:
    """A structural schema names the type of each member, and specifies all members outside of anyOf and the like."""
    kind = schema.get("type")
    if not kind and not schema.get(_KEPT) and not schema.get(_EITHER):
        causes.required(f"{path}.type", "must not be empty for specified object fields")
    elif kind and kind not in _TYPES:
        causes.not_supported(f"{path}.type", kind, _TYPES)
    if kind and schema.get(_EITHER):
        detail = "must be empty if x-kubernetes-int-or-string is true"
        causes.invalid(f"{path}.type", kind, detail)
    if schema.get(_KEPT) is False:
        causes.invalid(f"{path}.{_KEPT}", False, "must be true or undefined")
    if schema.get("uniqueItems"):
        causes.forbidden(
            f"{path}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )
    if schema.get("$ref"):
        causes.forbidden(f"{path}.$ref", "$ref is not supported")
    if "properties" in schema and isinstance(schema.get("additionalProperties"), dict):
        detail = "additionalProperties and properties are mutual exclusive"
        causes.forbidden(f"{path}.additionalProperties", detail)
    if schema.get("additionalProperties") is False:
        causes.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    for name, one in schema.get("properties", {}).items():
        if isinstance(one, dict) and not (path.endswith("openAPIV3Schema") and name == "metadata"):
            _check_structure(causes, f"{path}.properties[{name}]", one)
    if isinstance(schema.get("additionalProperties"), dict):
        _check_structure(causes, f"{path}.additionalProperties", schema["additionalProperties"])
    if kind == "array":
        _check_list(causes, path, schema)


def _check_list(causes: Causes, path: str, schema: Object) -> None:
    items = schema.get("items")
    if not isinstance(items, dict):
        causes.required(f"{path}.items", "must be specified")
        return
    _check_structure(causes, f"{path}.items", items)
    keys, kind = schema.get("x-kubernetes-list-map-keys", []), schema.get("x-kubernetes-list-type")
    if kind not in (None, "atomic", "map", "set"):
        causes.not_supported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set"))
    elif kind == "map" and not keys:
        causes.required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    for key in keys if kind == "map" else ():
        if key not in items.get("properties", {}):
            detail = "entries must all be names of item properties"
            causes.invalid(f"{path}.x-kubernetes-list-map-keys", keys, detail)
