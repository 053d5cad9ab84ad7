"""Selectors as requests carry them, and the value by which a field of an object is selected.

Errors  ApiError BadRequest for a selector that cannot be read.
State   None.
Source  Kubernetes: Labels and selectors, Field selectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgesite.kube import errors, selectors

__all__ = ["field_text", "parse_fields", "parse_labels"]

#: What a selectable field counts as where the object does not have it, if not as "".
_ABSENT: Final = {
    "spec.unschedulable": "false",
    "spec.hostNetwork": "false",
    "status.replicas": "0",
    "status.succeeded": "0",
}
#: Where a selectable field is looked for that the object does not have: events name who reports in either.
_ELSEWHERE: Final = {"source.component": "reportingComponent"}


def parse_labels(text: str) -> selectors.LabelSelector:
    """Raises ApiError (BadRequest)."""
    try:
        return selectors.parse_labels(text)
    except selectors.InvalidSelector as exc:
        raise errors.bad_request(
            f"unable to parse requirement: {exc}" if not str(exc).startswith("unable") else str(exc)
        ) from None


def parse_fields(text: str) -> selectors.FieldSelector:
    """Raises ApiError (BadRequest)."""
    try:
        return selectors.parse_fields(text)
    except selectors.InvalidSelector as exc:
        raise errors.bad_request(str(exc)) from None


def field_text(obj: Mapping[str, Any], path: str) -> str:
    """The value of a selectable field, by its path in the stored object."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None or value == "":
        return field_text(obj, _ELSEWHERE[path]) if path in _ELSEWHERE else _ABSENT.get(path, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(one.get("ip", "")) if isinstance(one, dict) else str(one) for one in value)
    return str(value)
