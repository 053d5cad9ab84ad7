"""What a list or watch is about: a kind, perhaps one namespace, selectors. Its text is the key under which it is remembered.

Errors  ApiError 400 for selectors that cannot be read.
State   None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from edgesite.edge.metamanager.replica import KindKey, Stored
from edgesite.kube import json
from edgesite.kube.resources import BUILTIN
from edgesite.kube.resourcetable import Resource, ResourceTable
from edgesite.kube.selectable import field_text, parse_fields, parse_labels

__all__ = ["ROWS", "Meta", "ScopeKey", "read_meta", "row_of"]

ROWS: Final = ResourceTable(BUILTIN)
_ABOUT: Final = ("metadata.name", "metadata.namespace")


class Meta(msgspec.Struct, gc=False):
    name: str
    namespace: str = ""
    resourceVersion: str = "0"
    labels: dict[str, str] | None = None
    uid: str = ""

    @property
    def revision(self) -> int:
        text = self.resourceVersion
        return int(text) if text.isascii() and text.isdigit() else 0


class _WithMeta(msgspec.Struct, gc=False):
    metadata: Meta


_decoder: Final = msgspec.json.Decoder(_WithMeta)


def read_meta(value: bytes | str | msgspec.Raw) -> Meta:
    """Read an object's metadata alone. Raises json.InvalidJson."""
    try:
        return _decoder.decode(value).metadata
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise json.InvalidJson(str(exc)) from None


@lru_cache(maxsize=256)
def row_of(kind: KindKey) -> Resource | None:
    """The row of a built-in kind."""
    return ROWS.find(kind.group, kind.version, kind.resource)


@dataclass(frozen=True, slots=True)
class ScopeKey:
    """Selectors are in canonical text."""

    kind: KindKey
    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @classmethod
    def of(cls, kind: KindKey, namespace: str, labels: str, fields: str) -> ScopeKey:
        """Raises ApiError 400."""
        canonical_labels = str(parse_labels(labels)) if labels else ""
        canonical_fields = str(parse_fields(fields)) if fields else ""
        return cls(kind, namespace, canonical_labels, canonical_fields)

    def __str__(self) -> str:
        kind = self.kind
        parts = [kind.group, kind.version, kind.resource, self.namespace, self.labels, self.fields]
        return json.dumps(parts).decode()

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a namespace, or of the kind."""
        return not self.labels and not self.fields

    def query(self) -> dict[str, str]:
        found = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in found.items() if value}

    def path(self) -> str:
        kind = self.kind
        base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        return f"{base}/namespaces/{self.namespace}/{kind.resource}" if self.namespace else f"{base}/{kind.resource}"

    def matcher(self) -> Callable[[Stored], bool] | None:
        """Which stored objects belong to it; None: all of its namespace."""
        if self.is_whole:
            return None
        labels = parse_labels(self.labels) if self.labels else None
        fields = parse_fields(self.fields) if self.fields else None
        row = row_of(self.kind)
        paths = {label: path for label, path in (row.field_paths.items() if row else ()) if label not in _ABOUT}
        decodes = fields is not None and any(one.field not in _ABOUT for one in fields.requirements)

        def matches(stored: Stored) -> bool:
            if labels is not None and not labels.matches(read_meta(stored.value).labels):
                return False
            if fields is None:
                return True
            values = {"metadata.name": stored.name, "metadata.namespace": stored.namespace}
            if decodes:
                obj: Mapping[str, Any] = json.loads(stored.value)
                values.update({label: field_text(obj, path) for label, path in paths.items()})
            return fields.matches(values)

        return matches
