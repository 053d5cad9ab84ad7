"""How objects become stored bytes, and stored bytes become answers: splicing, never re-encoding.

A stored value is one JSON object whose metadata begins with its resourceVersion, so that a write encodes the object once, before its
revision is known, and a list joins stored values as they are.

Errors  None.
State   None.
Source  Kubernetes API concepts (lists, watch events).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from edgesite.kube import json

__all__ = ["encoder", "list_body", "watch_line", "with_revision"]

_TYPES: Final = ("kind", "apiVersion", "metadata")
_MARK: Final = b'"metadata":{"resourceVersion":"'


def encoder(obj: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Return a function that gives the bytes of ``obj`` at a revision; 0 is none: a dry run's new object.

    ``obj`` must have metadata and may change afterwards.
    """
    head = json.dumps({"kind": obj.get("kind", ""), "apiVersion": obj.get("apiVersion", "")})[:-1]
    metadata = json.dumps({key: value for key, value in obj["metadata"].items() if key != "resourceVersion"})
    rest = json.dumps({key: value for key, value in obj.items() if key not in _TYPES})
    rest_part = b"," + rest[1:] if len(rest) > 2 else b"}"
    before = head + b',"metadata":{"resourceVersion":"'
    after = (b'",' + metadata[1:] if len(metadata) > 2 else b'"}') + rest_part

    def encode(revision: int) -> bytes:
        if not revision:
            return b'%b,"metadata":%b%b' % (head, metadata, rest_part)
        return b"%b%d%b" % (before, revision, after)

    return encode


def list_body(
    kind: str, api_version: str, revision: int, items: Iterable[bytes], token: str = "", remaining: int | None = None
) -> bytes:
    """Join encoded items to a list object."""
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if token:
        metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    head = json.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1]
    return b"".join((head, b',"items":[', b",".join(items), b"]}\n"))


def watch_line(event: str, value: bytes) -> bytes:
    """Return one event of a watch, with its newline."""
    return b'{"type":"%b","object":%b}\n' % (event.encode(), value)


def with_revision(value: bytes, revision: int) -> bytes:
    """Return a stored value as of another revision."""
    start = value.index(_MARK) + len(_MARK)
    return b"%b%d%b" % (value[:start], revision, value[value.index(b'"', start) :])
