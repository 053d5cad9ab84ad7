"""Stored objects in the form that a client wants: whole, as metadata alone, or as a Table; in JSON or YAML.

Errors  ApiError 406, 400.
State   None.
Source  Kubernetes API concepts (receiving resources as Tables, PartialObjectMetadata, watch bookmarks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgesite.edge.metaserver.scopekey import row_of
from edgesite.kube import errors, json
from edgesite.kube.encoding import list_body, watch_line
from edgesite.kube.negotiate import DEFAULT_VIEW, BodyFormat, Form, View, negotiate
from edgesite.kube.resourcetable import Resource
from edgesite.net.http import Frame, Request

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.edge.metamanager.replica import KindKey, Stored
    from edgesite.edge.metaserver.printers import Printers
    from edgesite.edge.metaserver.scopes import Change

__all__ = ["Views", "accept_of", "typed", "view_of"]

_PLAIN: Final = frozenset({"application/json", "*/*", "application/json, */*"})


class _OnlyMetadata(msgspec.Struct, gc=False):
    metadata: msgspec.Raw


_only_metadata: Final = msgspec.json.Decoder(_OnlyMetadata)


def view_of(request: Request) -> View:
    """The view that a request wants. Raises ApiError (406, 400)."""
    accept = request.headers.get("accept")
    if accept is None or accept in _PLAIN:
        return DEFAULT_VIEW
    include = request.query.get("includeObject", [""])[0] if request.raw_query else ""
    if include not in ("", "None", "Metadata", "Object"):
        raise errors.bad_request(f'unrecognized includeObject value: "{include}"')
    return negotiate(accept, include=include)


def accept_of(view: View) -> str:
    """What to accept of the cloud for a view: never what cannot be kept here."""
    if view.form is Form.OBJECT:
        return view.content_type
    return f"application/json;as={view.form.value};g=meta.k8s.io;v={view.version}"


def typed(value: bytes, kind: str, api_version: str) -> bytes:
    """An object's JSON with kind and apiVersion, which items of lists may lack."""
    if b'"kind":' in value[:256] and b'"apiVersion":' in value[:256]:
        return value
    obj = json.loads(value)
    if obj.get("kind") and obj.get("apiVersion"):
        return value
    return json.dumps({"apiVersion": api_version, "kind": kind, **obj})


class Views:
    """Renders stored objects. Who shows a custom kind as a Table sees to it that its columns are ready (`Printers`)."""

    def __init__(self, clock: Clock, printers: Printers) -> None:
        self._clock = clock
        self._printers = printers

    def object(self, kind: KindKey, value: bytes, view: View) -> bytes:
        """One object in JSON."""
        if view.form is Form.OBJECT:
            return value.rstrip(b"\n")
        if view.form is Form.TABLE:
            return json.dumps(self._table(kind, [value], view, {}))
        return self._partial(value, view.version)

    def collection(self, kind: KindKey, objects: Sequence[Stored], revision: int, view: View) -> bytes:
        """A list in JSON."""
        if view.form is Form.TABLE:
            metadata = {"resourceVersion": str(revision)}
            return json.dumps(self._table(kind, [one.value for one in objects], view, metadata))
        if view.form is Form.OBJECT:
            row = row_of(kind)
            name, version = _list_names(kind, row, objects[0].value if objects else b"")
            return list_body(name, version, revision, [one.value for one in objects])
        items = [self._partial(one.value, view.version) for one in objects]
        return list_body("PartialObjectMetadataList", f"meta.k8s.io/{view.version}", revision, items)

    def list_head(self, kind: KindKey, revision: int, first: bytes) -> bytes:
        """What a list of whole objects begins with; they follow, and "]}". ``first``: one of them, b"" if there is none."""
        name, version = _list_names(kind, row_of(kind), first)
        return list_body(name, version, revision, ()).rstrip(b"]}\n")

    def in_format(self, body: bytes, view: View) -> bytes:
        """JSON in the encoding of the view. YAML is read by people: what is JSON is YAML, too."""
        return msgspec.json.format(body, indent=2) + b"\n" if view.format is BodyFormat.YAML else body

    # -- watches -------------------------------------------------------------------------------------------------

    def frame(self, kind: KindKey, change: Change, view: View) -> Frame:
        """One event, encoded once for all who want it so."""
        frame: Frame | None = change.memo.get(view)
        if frame is None:
            frame = change.memo[view] = Frame(self.line(kind, change.type, change.value, view))
        return frame

    def line(self, kind: KindKey, type_: str, value: bytes, view: View) -> bytes:
        return watch_line(type_, self.object(kind, value, view))

    def bookmark(self, kind: KindKey, revision: int, view: View, *, initial_end: bool = False) -> bytes:
        """A BOOKMARK event."""
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        row = row_of(kind)
        name, version = row.kind if row else "", _api_version(kind)
        obj: dict[str, Any] = {"kind": name, "apiVersion": version, "metadata": metadata}
        if view.form is Form.TABLE:
            del metadata["creationTimestamp"]
            obj = {"kind": "Table", "apiVersion": f"meta.k8s.io/{view.version}", "metadata": metadata}
            obj |= {"columnDefinitions": None, "rows": []}
        elif view.form is not Form.OBJECT:
            obj |= {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{view.version}"}
        return watch_line("BOOKMARK", json.dumps(obj))

    # -- forms ---------------------------------------------------------------------------------------------------

    def _partial(self, value: bytes, version: str) -> bytes:
        metadata = bytes(_only_metadata.decode(value).metadata)
        return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (
            version.encode(),
            metadata,
        )

    def _table(self, kind: KindKey, values: list[bytes], view: View, metadata: dict[str, Any]) -> dict[str, Any]:
        from edgesite.kube import tables  # only people ask for tables

        row = row_of(kind) or Resource(kind.group, kind.version, "", kind.resource)
        objects = [json.loads(one) for one in values]
        table = tables.table(
            row, objects, self._clock.time(), view.include or "Metadata", metadata, self._printers.find(kind)
        )
        return {**table, "apiVersion": f"meta.k8s.io/{view.version}"}


def _api_version(kind: KindKey) -> str:
    return f"{kind.group}/{kind.version}" if kind.group else kind.version


def _list_names(kind: KindKey, row: Resource | None, first: bytes) -> tuple[str, str]:
    if row is not None:
        return row.list_name, row.api_version
    word = str(json.loads(first).get("kind") or "") if first else ""
    if not word:
        from edgesite.wire.application import guessed_kind

        word = guessed_kind(kind.resource)
    return f"{word}List", _api_version(kind)
