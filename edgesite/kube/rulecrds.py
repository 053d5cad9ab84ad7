"""The CustomResourceDefinitions of Rule and RuleEndpoint, by which KubeEdge's router is told what to carry where.

Errors  None.
Source  KubeEdge v1.12 to v1.23, build/crds/router (names of fields, types, what is required).
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["GROUP", "definitions"]

Object = dict[str, Any]
GROUP: Final = "rules.kubeedge.io"
_TEXT: Final = {"type": "string"}


def definitions() -> list[Object]:
    """Return both definitions."""
    ends = ["source", "sourceResource", "target", "targetResource"]
    rule: Object = {
        "type": "object",
        "required": ends,
        "properties": {name: _texts() if name.endswith("Resource") else dict(_TEXT) for name in ends},
    }
    counts: Object = {
        "type": "object",
        "properties": {
            "successMessages": {"type": "integer"},
            "failMessages": {"type": "integer"},
            "errors": {"type": "array", "items": dict(_TEXT)},
        },
    }
    endpoint: Object = {
        "type": "object",
        "required": ["ruleEndpointType"],
        "properties": {"ruleEndpointType": dict(_TEXT), "properties": _texts()},
    }
    return [
        _definition("Rule", [], {"spec": rule, "status": counts}),
        _definition("RuleEndpoint", ["re"], {"spec": endpoint}),
    ]


def _texts() -> Object:
    return {"type": "object", "additionalProperties": dict(_TEXT)}


def _definition(kind: str, short_names: list[str], properties: Object) -> Object:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
    names: Object = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    if short_names:
        names["shortNames"] = short_names
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }
