"""The shape of a row of the resource table, and look-up in it. The rows themselves are in `edgesite.kube.resources`.

Errors  ValueError for a row whose name or kind is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["ALL_VERBS", "SUBRESOURCES", "Resource", "ResourceTable", "Subresource"]

ALL_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one API version. ``group`` is "" for the core group; ``subresources`` are names such as "status".

    ``selectable`` are the field labels beside metadata.name and metadata.namespace that field selectors may use, each the
    path of the field; "label:path" where the stored object has it elsewhere.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    list_kind: str = ""
    selectable: tuple[str, ...] = ()
    stored_as: tuple[str, str, str] | None = None  #: (group, version, plural) of the row that owns the stored objects

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def list_name(self) -> str:
        """The kind of the list: "PodList"."""
        return self.list_kind or f"{self.kind}List"

    @property
    def group_resource(self) -> str:
        """As messages name it: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def base_path(self) -> str:
        """ "/api/v1" or "/apis/apps/v1"."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def field_paths(self) -> dict[str, str]:
        """Field labels that selectors may use, each with its path in the stored object."""
        paths = {"metadata.name": "metadata.name"}
        if self.namespaced:
            paths["metadata.namespace"] = "metadata.namespace"
        for one in self.selectable:
            label, _, path = one.partition(":")
            paths[label] = path or label
        return paths

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection or of one object."""
        parts = [self.base_path]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Subresource:
    """What a subresource serves. ``kind`` is "" where it is the kind of its resource."""

    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""


_PROXY: Final = Subresource(("create", "delete", "get", "patch", "update"), kind="{kind}ProxyOptions")

#: Subresources by name.
SUBRESOURCES: Final[dict[str, Subresource]] = {
    "approval": Subresource(("get", "patch", "update")),
    "attach": Subresource(("create", "get"), kind="PodAttachOptions"),
    "binding": Subresource(("create",), kind="Binding"),
    "ephemeralcontainers": Subresource(("get", "patch", "update")),
    "eviction": Subresource(("create",), "policy", "v1", "Eviction"),
    "exec": Subresource(("create", "get"), kind="PodExecOptions"),
    "finalize": Subresource(("update",)),
    "log": Subresource(("get",)),
    "portforward": Subresource(("create", "get"), kind="PodPortForwardOptions"),
    "proxy": _PROXY,
    "resize": Subresource(("get", "patch", "update")),
    "scale": Subresource(("get", "patch", "update"), "autoscaling", "v1", "Scale"),
    "status": Subresource(("get", "patch", "update")),
    "token": Subresource(("create",), "authentication.k8s.io", "v1", "TokenRequest"),
}


class ResourceTable:
    """Rows by name and by kind. Views of the same kind in several versions stand side by side."""

    def __init__(self, rows: Iterable[Resource] = ()) -> None:
        self._by_plural: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Resource) -> None:
        """Serve one more kind. Raises ValueError if its name or kind is taken."""
        plural = (row.group, row.version, row.plural)
        kind = (row.group, row.version, row.kind)
        if plural in self._by_plural or kind in self._by_kind:
            raise ValueError(f"{row.group_resource} {row.version} ({row.kind}) is served already")
        self._by_plural[plural] = row
        self._by_kind[kind] = row

    def remove(self, row: Resource) -> None:
        """Serve it no more; one that is not served is fine."""
        self._by_plural.pop((row.group, row.version, row.plural), None)
        self._by_kind.pop((row.group, row.version, row.kind), None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_plural.values())

    def __len__(self) -> int:
        return len(self._by_plural)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_plural.get((group, version, plural))

    def of_kind(self, group: str, version: str, kind: str) -> Resource | None:
        return self._by_kind.get((group, version, kind))

    def of_api_version(self, api_version: str, kind: str) -> Resource | None:
        """Look up by ``apiVersion`` and ``kind`` as objects carry them."""
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def stored(self, row: Resource) -> Resource:
        """The row that owns the stored objects of ``row``: mostly itself."""
        return self._by_plural.get(row.stored_as, row) if row.stored_as else row
