"""The table of kinds that are served: rows, how they are stored, and their strategies. Custom resources are more rows.

Errors  ApiError NotFound for what is not served.
State   The table; ``version`` counts its changes, so that what is derived from it (discovery, OpenAPI) knows when to be made anew.
Source  Kubernetes API concepts (resource URIs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import Resource

__all__ = ["NOT_SERVED", "Conversion", "Kind", "Kinds", "prefix_of"]

NOT_SERVED: Final = "the server could not find the requested resource"
Conversion = Callable[[dict[str, Any]], dict[str, Any]]


def prefix_of(group: str, plural: str) -> str:
    """Where the objects of a resource are stored: one path segment, which is one bucket of the store."""
    return f"/{plural}.{group}/" if group else f"/{plural}/"


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One served resource in one version. Versions of one resource share ``prefix`` and ``strategy``."""

    resource: Resource
    strategy: Strategy
    prefix: str
    stored: Resource  #: the row in whose version objects are stored
    definition: str | None  #: name of its schema's definition
    to_stored: Conversion | None = None  #: None: the forms are the same
    from_stored: Conversion | None = None
    custom: Any = None  #: the schema of a custom resource

    @property
    def is_stored_form(self) -> bool:
        return self.resource is self.stored

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}" if self.resource.namespaced else self.prefix + name

    def collection(self, namespace: str) -> str:
        """The prefix of all objects of a namespace, or of all."""
        return f"{self.prefix}{namespace}/" if namespace and self.resource.namespaced else self.prefix

    def names_of(self, key: str) -> tuple[str, str]:
        """Namespace and name of a key."""
        rest = key[len(self.prefix) :]
        if not self.resource.namespaced:
            return "", rest
        namespace, _, name = rest.partition("/")
        return namespace, name


class Kinds:
    """Kinds by where they are served."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._by_prefix: dict[str, Kind] = {}
        self.version = 0

    def add(self, kinds: Iterable[Kind]) -> None:
        """Serve these; a row of the same path is replaced."""
        for kind in kinds:
            row = kind.resource
            self._by_path[row.group, row.version, row.plural] = kind
            if kind.is_stored_form:
                self._by_prefix[kind.prefix] = kind
        self.version += 1

    def remove(self, group: str, plural: str) -> None:
        """Stop serving a resource in all its versions."""
        for path in [path for path in self._by_path if path[0] == group and path[2] == plural]:
            del self._by_path[path]
        self._by_prefix.pop(prefix_of(group, plural), None)
        self.version += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def get(self, group: str, version: str, plural: str) -> Kind:
        """Raises ApiError (NotFound)."""
        kind = self._by_path.get((group, version, plural))
        if kind is None:
            raise ApiError(404, "NotFound", NOT_SERVED, {})
        return kind

    def stored_at(self, prefix: str) -> Kind | None:
        """The kind in its stored form whose objects lie under ``prefix``."""
        return self._by_prefix.get(prefix)

    def of(self, resource: Resource) -> Kind:
        """Raises ApiError (NotFound)."""
        return self.get(resource.group, resource.version, resource.plural)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_path.values())

    def rows(self) -> tuple[Resource, ...]:
        return tuple(kind.resource for kind in self._by_path.values())
