"""Discovery documents, made from rows: legacy (one per group version) and aggregated (one for all).

    api_versions(address)              /api
    group_list(rows), group(rows, name)   /apis, /apis/G
    resource_list(rows, group, version)   /api/v1, /apis/G/V
    aggregated(rows, core, version)       /api and /apis as apidiscovery.k8s.io v2 or v2beta1

All return plain objects. The first row of a group has its preferred version. Documents are made anew at each call: a server
keeps the encoded bytes until its rows change.

Errors  LookupError for a group or version that no row has.
Source  meta/v1 APIGroupList, APIResourceList; apidiscovery/v2 APIGroupDiscoveryList.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from edgesite.kube.resourcetable import SUBRESOURCES, Resource, Subresource

__all__ = ["AGGREGATED_MEDIA_TYPE", "aggregated", "api_versions", "group", "group_list", "resource_list"]

#: Media type of aggregated documents; ``{}`` is the version, "v2" or "v2beta1".
AGGREGATED_MEDIA_TYPE: Final = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


def api_versions(server_address: str) -> dict[str, Any]:
    """/api: the versions of the core group. ``server_address`` is "host:port" for clients anywhere."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def group_list(rows: Iterable[Resource]) -> dict[str, Any]:
    """/apis: all groups but the core one."""
    groups = [_group(name, versions) for name, versions in _versions(rows).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(rows: Iterable[Resource], name: str) -> dict[str, Any]:
    """/apis/G. Raises LookupError."""
    versions = _versions(rows).get(name) if name else None
    if not versions:
        raise LookupError(f"no API group {name!r}")
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def resource_list(rows: Iterable[Resource], group: str, version: str) -> dict[str, Any]:
    """/api/v1 or /apis/G/V. Raises LookupError."""
    resources: list[dict[str, Any]] = []
    for row in _of(rows, group, version):
        resources.append(_legacy_resource(row))
        resources.extend(_legacy_subresource(row, name) for name in row.subresources)
    if not resources:
        raise LookupError(f"no API version {group}/{version}")
    resources.sort(key=lambda one: str(one["name"]))
    head = {"kind": "APIResourceList", "apiVersion": "v1"} if group else {"kind": "APIResourceList"}
    return {**head, "groupVersion": f"{group}/{version}" if group else version, "resources": resources}


def aggregated(rows: Iterable[Resource], core: bool, version: Literal["v2", "v2beta1"] = "v2") -> dict[str, Any]:
    """All groups with all their resources: the core group alone (/api), or all others (/apis)."""
    rows = list(rows)
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
            "versions": [
                {
                    "version": one,
                    "resources": [_aggregated_resource(row) for row in _of(rows, name, one)],
                    "freshness": "Current",
                }
                for one in versions
            ],
        }
        for name, versions in _versions(rows).items()
        if bool(name) is not core
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _versions(rows: Iterable[Resource]) -> dict[str, list[str]]:
    """Groups in the order of their rows, each with its versions, the preferred one first."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        versions = groups.setdefault(row.group, [])
        if row.version not in versions:
            versions.append(row.version)
    return groups


def _of(rows: Iterable[Resource], group: str, version: str) -> list[Resource]:
    found = [row for row in rows if row.group == group and row.version == version]
    return sorted(found, key=lambda row: row.plural)


def _group(name: str, versions: Sequence[str]) -> dict[str, Any]:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _legacy_resource(row: Resource) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "name": row.plural,
        "singularName": row.singular_name,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(row.verbs),
    }
    if row.short_names:
        resource["shortNames"] = list(row.short_names)
    if row.categories:
        resource["categories"] = list(row.categories)
    return resource


def _legacy_subresource(row: Resource, name: str) -> dict[str, Any]:
    kind = _response_kind(row, SUBRESOURCES[name])
    resource: dict[str, Any] = {"name": f"{row.plural}/{name}", "singularName": "", "namespaced": row.namespaced}
    if kind["group"] != row.group:
        resource |= {"group": kind["group"], "version": kind["version"]}
    return {**resource, "kind": kind["kind"], "verbs": list(SUBRESOURCES[name].verbs)}


def _aggregated_resource(row: Resource) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular_name,
        "verbs": list(row.verbs),
    }
    if row.short_names:
        resource["shortNames"] = list(row.short_names)
    if row.categories:
        resource["categories"] = list(row.categories)
    if row.subresources:
        resource["subresources"] = [
            {
                "subresource": name,
                "responseKind": _response_kind(row, SUBRESOURCES[name]),
                "verbs": list(SUBRESOURCES[name].verbs),
            }
            for name in sorted(row.subresources)
        ]
    return resource


def _response_kind(row: Resource, subresource: Subresource) -> dict[str, str]:
    if not subresource.kind:
        return {"group": row.group, "version": row.version, "kind": row.kind}
    kind = subresource.kind.format(kind=row.kind)
    return {"group": subresource.group, "version": subresource.version or "v1", "kind": kind}
