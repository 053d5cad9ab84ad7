"""The custom resources that the cloud role works with, for a cluster that does not have them: what ``--install-crds`` writes (`install`).

Devices and their models have definitions of their own (`edgesite.kube.devices.crds`), as have rules (`edgesite.kube.rulecrds`); the others are made from the rows of
`edgesite.kube.resources` whose groups end with ``kubeedge.io``, and the cluster does not check their contents.

Errors  None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesite.kube import devices, rulecrds
from edgesite.kube.devices import crds
from edgesite.kube.resources import BUILTIN

if TYPE_CHECKING:
    from edgesite.kube.resources import Resource

__all__ = ["definitions"]


def definitions(*, conversion: dict[str, Any] | None = None, device_statuses: bool = False) -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions. ``conversion`` is how the API server turns versions of devices into each other: without it
    only one is served. ``device_statuses``: KubeEdge v1.23's DeviceStatus is among them."""
    own = (devices.GROUP, rulecrds.GROUP)
    others = [_definition(row) for row in BUILTIN if row.group.endswith(".kubeedge.io") and row.group not in own]
    made = crds.definitions(converts=conversion is not None)
    for one in made if conversion is not None else ():
        one["spec"]["conversion"] = conversion
    return [*made, *([crds.status_definition()] if device_statuses else ()), *rulecrds.definitions(), *others]


def _definition(row: Resource) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": row.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    if "status" in row.subresources:
        version["subresources"] = {"status": {}}
    names: dict[str, Any] = {"kind": row.kind, "plural": row.plural, "singular": row.kind.lower()}
    if row.short_names:
        names["shortNames"] = list(row.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{row.plural}.{row.group}"},
        "spec": {
            "group": row.group,
            "names": names,
            "scope": "Namespaced" if row.namespaced else "Cluster",
            "versions": [version],
        },
    }
