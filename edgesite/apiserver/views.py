"""The bytes of an answer: objects, lists and watch events in the form that was negotiated.

Errors  None beyond those of conversion and printing.
State   None.
Source  Kubernetes API concepts (receiving resources as Tables, PartialObjectMetadata).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgesite.kube import json
from edgesite.kube.encoding import list_body
from edgesite.kube.negotiate import BodyFormat, Form, View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.registry import Listed
    from edgesite.context import Clock
    from edgesite.store.rows import Row

__all__ = ["Views", "in_format"]

Object = dict[str, Any]


class _OnlyMetadata(msgspec.Struct, gc=False):
    metadata: msgspec.Raw


_only_metadata: Final = msgspec.json.Decoder(_OnlyMetadata)


def in_format(body: bytes, view: View) -> bytes:
    """Return JSON bytes in the encoding of the view."""
    if view.format is BodyFormat.JSON:
        return body
    from edgesite.apiserver import yamlbody  # see scheme.parse_body

    return yamlbody.render(json.loads(body))


class Views:
    """Renders rows. A plain object is its stored bytes; all else is made from them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def object(self, kind: Kind, row: Row, view: View) -> bytes:
        """One object in JSON, as an answer or inside of a watch event."""
        if view.form is Form.OBJECT:
            return self._plain(kind, row)
        if view.form is Form.TABLE:
            return json.dumps(self._table(kind, [row], view, row.revision))
        return self._partial(row, view.version)

    def list(self, kind: Kind, listed: Listed, view: View) -> bytes:
        """A list in JSON."""
        if view.form is Form.TABLE:
            table = self._table(kind, listed.rows, view, listed.revision)
            if listed.token:
                table["metadata"]["continue"] = listed.token
                if listed.remaining is not None:
                    table["metadata"]["remainingItemCount"] = listed.remaining
            return json.dumps(table)
        if view.form is Form.OBJECT:
            row = kind.resource
            items = [one.value for one in listed.rows] if kind.from_stored is None else self._each(kind, listed.rows)
            return list_body(row.list_name, row.api_version, listed.revision, items, listed.token, listed.remaining)
        version = f"meta.k8s.io/{view.version}"
        items = [self._partial(one, view.version) for one in listed.rows]
        return list_body("PartialObjectMetadataList", version, listed.revision, items, listed.token, listed.remaining)

    def bookmark(self, kind: Kind, view: View, revision: int, *, initial_end: bool = False) -> bytes:
        """The object of a BOOKMARK event."""
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if view.form is Form.OBJECT:
            return json.dumps(
                {"kind": kind.resource.kind, "apiVersion": kind.resource.api_version, "metadata": metadata}
            )
        version = f"meta.k8s.io/{view.version}"
        if view.form is Form.TABLE:
            del metadata["creationTimestamp"]
            return json.dumps(
                {"kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": None, "rows": []}
            )
        return json.dumps({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata})

    def _plain(self, kind: Kind, row: Row) -> bytes:
        if kind.from_stored is None:
            return row.value
        return json.dumps(kind.from_stored(json.loads(row.value)))

    def _each(self, kind: Kind, rows: Sequence[Row]) -> Sequence[bytes]:
        convert: Callable[[Object], Object] = kind.from_stored or (lambda obj: obj)
        return [json.dumps(convert(json.loads(row.value))) for row in rows]

    def _partial(self, row: Row, version: str) -> bytes:
        metadata = bytes(_only_metadata.decode(row.value).metadata)
        return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (
            version.encode(),
            metadata,
        )

    def _table(self, kind: Kind, rows: Sequence[Row], view: View, revision: int) -> Object:
        from edgesite.kube import tables  # only people ask for tables

        objects = [json.loads(row.value) for row in rows]
        if kind.from_stored is not None:
            objects = [kind.from_stored(one) for one in objects]
        table: Object = tables.table(
            kind.resource,
            objects,
            self._clock.time(),
            include_object=view.include or "Metadata",
            printer=kind.custom.printer if kind.custom is not None else None,
        )
        table["apiVersion"] = f"meta.k8s.io/{view.version}"
        table["metadata"] = {"resourceVersion": str(revision)}
        return table
