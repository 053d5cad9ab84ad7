"""JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7396), with the API server's limits and refusals.

    json_patch(obj, operations)     a new object
    merge_patch(obj, patch)         a new object
    diff_merge(old, new)            the merge patch that makes ``new`` of ``old``

`patch_strategic` has the third type. What is given is never changed; results may share parts with it.

Units   Sizes are bytes of JSON.
Errors  ApiError: 400 for what is no patch, 422 for one that does not apply, 413 beyond a limit. Nothing else leaves.
State   None.
Source  RFC 6901, 6902, 7396; apiserver pkg/endpoints/handlers/patch.go (limits, codes, texts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from edgesite.kube import json
from edgesite.kube.errors import ApiError, bad_request

__all__ = ["MAX_DEPTH", "check_depth", "copied", "diff_merge", "json_patch", "merge_patch"]

T = TypeVar("T")
MAX_OPERATIONS: Final = 10_000  #: As kube-apiserver.
MAX_COPIED_BYTES: Final = (
    3 * 1024 * 1024
)  #: What all "copy" operations of one patch may add: as much as a request's body.
MAX_DEPTH: Final = 250  #: Nesting of a patch and of its result; far beyond any kind, well below what recursion bears.

_INDEX: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,8})", re.ASCII)
_WITH_VALUE: Final = frozenset({"add", "replace", "test"})
_WITH_FROM: Final = frozenset({"move", "copy"})


class _Unfit(Exception):
    """An operation does not apply; becomes a 422."""


# ---- merge patch ------------------------------------------------------------------------------------------------------


def merge_patch(obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Return ``obj`` with ``patch`` merged: null removes a member, objects merge, anything else replaces. Raises ApiError."""
    if not isinstance(patch, dict):
        raise bad_request("Invalid JSON Patch")
    check_depth(patch)
    return _merge(obj, patch)


def _merge(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            current = merged.get(name)
            merged[name] = _merge(current if isinstance(current, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def diff_merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest merge patch that makes ``new`` of ``old``; empty if they are equal. Nulls in ``new`` count as absent."""
    patch: dict[str, Any] = {}
    for name, value in new.items():
        before = old.get(name)
        if value is None or (value == before and type(value) is type(before)):
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := diff_merge(before, value):
                patch[name] = inner
        else:
            patch[name] = value
    patch.update((name, None) for name in old if new.get(name) is None and old[name] is not None)
    return patch


def check_depth(value: Any) -> None:
    """Raise ApiError (400) if ``value`` is nested deeper than MAX_DEPTH; takes no recursion itself."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise bad_request(f"exceeded max depth: a patch may be nested {MAX_DEPTH} levels deep")


# ---- JSON patch -------------------------------------------------------------------------------------------------------


def json_patch(obj: Mapping[str, Any], operations: Any) -> dict[str, Any]:
    """Return ``obj`` with all ``operations`` applied, or none: raises ApiError if one does not apply."""
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        told = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {told}")
    check_depth(operations)
    document = _Document(copied(obj))
    for number, operation in enumerate(operations):
        try:
            document.apply(operation)
        except _Unfit as exc:
            raise _unprocessable(number, operation, str(exc)) from None
    if not isinstance(document.root, dict):
        raise _unprocessable(len(operations) - 1, operations[-1], "the result is no object")
    check_depth(document.root)
    return document.root


def _unprocessable(number: int, operation: Mapping[str, Any], why: str) -> ApiError:
    """kube-apiserver tells only that the request was rejected; the cause says why, which clients show."""
    cause = {"reason": "FieldValueInvalid", "message": f"{operation.get('op')} {operation.get('path')}: {why}"}
    return ApiError(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
        {"causes": [{**cause, "field": f"patch[{number}]"}]},
    )


class _Document:
    """The object while operations change it."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied_bytes = 0

    def apply(self, operation: Mapping[str, Any]) -> None:
        kind = operation.get("op")
        path = _pointer(operation.get("path"), "path")
        if kind in _WITH_VALUE and "value" not in operation:
            raise _Unfit("the operation has no value")
        if kind == "add":
            self._add(path, copied(operation["value"]))
        elif kind == "remove":
            self._remove(path)
        elif kind == "replace":
            self._replace(path, copied(operation["value"]))
        elif kind == "test":
            self._test(path, operation["value"])
        elif kind in _WITH_FROM:
            origin = _pointer(operation.get("from"), "from")
            value = self._get(origin)
            if kind == "copy":
                self._count(value)
                value = copied(value)
            elif path[: len(origin)] == origin and len(path) > len(origin):
                raise _Unfit("a value cannot be moved into itself")
            else:
                self._remove(origin)
            self._add(path, value)
        else:
            raise _Unfit(f"Unexpected kind: {kind}")

    def _count(self, value: Any) -> None:
        check_depth([value])
        self._copied_bytes += len(json.dumps(value))
        if self._copied_bytes > MAX_COPIED_BYTES:
            raise _Unfit(f"copies of more than {MAX_COPIED_BYTES} bytes in one patch")

    def _get(self, path: Sequence[str]) -> Any:
        value = self.root
        for token in path:
            if isinstance(value, dict):
                if token not in value:
                    raise _Unfit(f"doc is missing key: {token}: missing value")
                value = value[token]
            elif isinstance(value, list):
                value = value[_index(token, len(value), len(value) - 1)]
            else:
                raise _Unfit(f"doc is missing path: {token}: missing value")
        return value

    def _holder(self, path: Sequence[str]) -> dict[str, Any] | list[Any]:
        holder = self._get(path[:-1])
        if not isinstance(holder, dict | list):
            raise _Unfit(f"doc is missing path: {path[-1]}: missing value")
        return holder

    def _add(self, path: Sequence[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        holder = self._holder(path)
        if isinstance(holder, dict):
            holder[path[-1]] = value
        elif path[-1] == "-":
            holder.append(value)
        else:
            holder.insert(_index(path[-1], len(holder) + 1, len(holder)), value)

    def _remove(self, path: Sequence[str]) -> None:
        if not path:
            raise _Unfit("the whole object cannot be removed")
        self._get(path)
        holder = self._holder(path)
        if isinstance(holder, dict):
            del holder[path[-1]]
        else:
            del holder[_index(path[-1], len(holder), len(holder) - 1)]

    def _replace(self, path: Sequence[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        self._get(path)
        holder = self._holder(path)
        if isinstance(holder, dict):
            holder[path[-1]] = value
        else:
            holder[_index(path[-1], len(holder), len(holder) - 1)] = value

    def _test(self, path: Sequence[str], value: Any) -> None:
        try:
            found = self._get(path)
        except _Unfit:
            if value is None:  # a missing member counts as null
                return
            raise
        if not _equal(found, value):
            raise _Unfit("test failed")


def _pointer(text: Any, member: str) -> list[str]:
    """Read a JSON pointer."""
    if not isinstance(text, str):
        raise _Unfit(f"the operation has no {member}")
    if not text:
        return []
    if text[0] != "/":
        raise _Unfit(f"{member} {text!r} does not begin with '/'")
    return [one.replace("~1", "/").replace("~0", "~") for one in text[1:].split("/")]


def _index(token: str, length: int, last: int) -> int:
    """Read a place in a list of ``length`` places; negative ones count from its end."""
    if not _INDEX.fullmatch(token):
        raise _Unfit(f"'{token}' is no place in a list")
    index = int(token)
    if index < 0:
        index += length
    if not 0 <= index <= last:
        raise _Unfit(f"Unable to access invalid index: {token}: invalid index referenced")
    return index


def _equal(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(_equal(a, b) for a, b in zip(one, other, strict=True))
        )
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def copied(value: T) -> T:
    """A JSON value of one's own; ten times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [copied(one) for one in value]  # type: ignore[return-value]
    return value
