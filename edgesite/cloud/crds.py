"""The custom resources that the cloud role works with, for a cluster that does not have them: what ``--install-crds`` writes.

Devices and their models have definitions of their own (`edgesite.kube.devices.crds`); the others are made from the rows of
`edgesite.kube.resources` whose groups end with ``kubeedge.io``, and the cluster does not check their contents. KubeEdge's own
definitions, where they are installed already, are left as they are.

Errors  ApiError of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import devices
from edgesite.kube.devices import crds
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.kube.resources import Resource

__all__ = ["definitions", "install"]

_DEFINITIONS: Final = next(one for one in BUILTIN if one.plural == "customresourcedefinitions")


def definitions() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions."""
    others = [_definition(row) for row in BUILTIN if row.group.endswith(".kubeedge.io") and row.group != devices.GROUP]
    return [*crds.definitions(converts=False), *others]


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


async def install(client: Client) -> tuple[list[str], list[str]]:
    """Create what is missing; returns the names of what was made, and of what was there. Raises ApiError."""
    made, there = [], []
    for definition in definitions():
        name = definition["metadata"]["name"]
        try:
            await client.create(_DEFINITIONS, definition)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            there.append(name)
        else:
            made.append(name)
    return made, there
