"""Causes: what is wrong with an object, field by field, in the words of kube-apiserver.

    causes = Causes()
    causes.required("spec.containers")
    errors.invalid("Pod", name, causes.found)

Errors  None raised.
Source  Reasons and texts of apimachinery's field errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgesite.kube import json

__all__ = ["IMMUTABLE", "MAX_INT32", "NOT_NEGATIVE", "PORT_RANGE", "Causes"]

NOT_NEGATIVE: Final = "must be greater than or equal to 0"
PORT_RANGE: Final = "must be between 1 and 65535, inclusive"
IMMUTABLE: Final = "field is immutable"
MAX_INT32: Final = 2**31 - 1
_SHOWN: Final = 10_000  #: bytes of a bad value that are told; an object may be megabytes


class Causes:
    """Collects causes; ``found`` is what `errors.invalid` takes. Truth is whether there are any."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def _add(self, reason: str, path: str, message: str) -> None:
        self.found.append({"reason": reason, "message": message, "field": path})

    def required(self, path: str, detail: str = "") -> None:
        self._add("FieldValueRequired", path, f"Required value: {detail}" if detail else "Required value")

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self._add("FieldValueInvalid", path, f"Invalid value: {_shown(value)}: {detail}")

    def not_supported(self, path: str, value: Any, supported: Iterable[str]) -> None:
        choices = ", ".join(_shown(one) for one in supported)
        self._add("FieldValueNotSupported", path, f"Unsupported value: {_shown(value)}: supported values: {choices}")

    def duplicate(self, path: str, value: Any) -> None:
        self._add("FieldValueDuplicate", path, f"Duplicate value: {_shown(value)}")

    def forbidden(self, path: str, detail: str) -> None:
        self._add("FieldValueForbidden", path, f"Forbidden: {detail}")

    def not_found(self, path: str, value: Any) -> None:
        self._add("FieldValueNotFound", path, f"Not found: {_shown(value)}")

    def too_long(self, path: str, limit: int) -> None:
        self._add("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes")

    def too_many(self, path: str, count: int, limit: int) -> None:
        self._add("FieldValueTooMany", path, f"Too many: {count}: must have at most {limit} items")

    def each(self, path: str, value: Any, problems: Iterable[str]) -> None:
        """One cause for each problem that a check of `names` tells."""
        for problem in problems:
            self.invalid(path, value, problem)

    def choice(self, path: str, value: Any, supported: Iterable[str]) -> None:
        """``value`` has to be there and one of ``supported``."""
        if value in (None, ""):
            self.required(path)
        elif value not in supported:
            self.not_supported(path, value, supported)

    def not_negative(self, path: str, value: int | None) -> None:
        if value is not None and value < 0:
            self.invalid(path, value, NOT_NEGATIVE)

    def port(self, path: str, value: int | None) -> None:
        if value is None or not 0 < value < 65536:
            self.invalid(path, value or 0, PORT_RANGE)

    def unchanged(self, path: str, new: Any, old: Any, detail: str = IMMUTABLE) -> None:
        if new != old:
            self.invalid(path, new, detail)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + b"..."
    return text.decode("utf-8", "replace")
