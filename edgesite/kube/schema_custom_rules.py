"""Rules of a custom resource's schema: types, ranges, patterns, required members, as kube-apiserver checks and words them.

CEL rules (x-kubernetes-validations) are not evaluated.

Errors  None raised: what is wrong goes into `Causes`.
Source  OpenAPI 3.0 validation in apiextensions.k8s.io/v1 (JSONSchemaProps), texts of kube-openapi's validator.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import json, times
from edgesite.kube.causes import Causes

__all__ = ["check", "compiled"]

Object = dict[str, Any]
MAX_CAUSES: Final = 100  #: of one object; more would tell nobody anything
MAX_MATCHED_CHARS: Final = 65536  #: longer texts are not searched: a pattern of Python can be made to take for ever
_UUID: Final = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def check(causes: Causes, path: str, value: Any, schema: Object) -> None:
    """Check one value against its schema; ``path`` is "" at the root."""
    if len(causes.found) >= MAX_CAUSES:
        return
    if value is None and schema.get("nullable"):
        return
    if not _check_type(causes, path, value, schema):
        return
    if isinstance(value, dict):
        _check_object(causes, path, value, schema)
    elif isinstance(value, list):
        _check_list(causes, path, value, schema)
    elif isinstance(value, str):
        _check_text(causes, path, value, schema)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(causes, path, value, schema)
    if "enum" in schema and value not in schema["enum"]:
        causes.not_supported(path, value, schema["enum"])
    _check_combinations(causes, path, value, schema)


def _name(path: str) -> str:
    """How texts name a place."""
    return path or '""'


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_type(causes: Causes, path: str, value: Any, schema: Object) -> bool:
    kind = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return True
        kind = "integer,string"
    elif not kind or _is(value, kind):
        return True
    shown = _type_of(value)
    causes.invalid(path, shown, f'{_name(path)} in body must be of type {kind}: "{shown}"')
    causes.found[-1]["reason"] = "FieldValueTypeInvalid"
    return False


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES.get(kind, object))


_TYPES: Final[dict[str, type]] = {"string": str, "boolean": bool, "object": dict, "array": list}


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _check_object(causes: Causes, path: str, value: Object, schema: Object) -> None:
    for name in schema.get("required", ()):
        if name not in value:
            causes.required(_child(path, name))
    low, high = schema.get("minProperties"), schema.get("maxProperties")
    if low is not None and len(value) < low:
        causes.invalid(path, len(value), f"{_name(path)} in body should have at least {low} properties")
    if high is not None and len(value) > high:
        causes.too_many(path, len(value), high)
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, one in value.items():
        if name in properties:
            check(causes, _child(path, name), one, properties[name])
        elif isinstance(others, dict):
            check(causes, _child(path, name), one, others)


def _check_list(causes: Causes, path: str, value: list[Any], schema: Object) -> None:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and len(value) < low:
        causes.invalid(path, len(value), f"{_name(path)} in body should have at least {low} items")
    if high is not None and len(value) > high:
        causes.too_many(path, len(value), high)
    items = schema.get("items")
    if isinstance(items, dict):
        for index, one in enumerate(value):
            check(causes, f"{path}[{index}]", one, items)
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", ())
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for index, one in enumerate(value):
        key = {name: one.get(name) for name in keys} if kind == "map" and isinstance(one, dict) else one
        text = json.dumps(key)
        if text in seen:
            causes.duplicate(f"{path}[{index}]", key)
        seen.add(text)


def _check_text(causes: Causes, path: str, value: str, schema: Object) -> None:
    low, high = schema.get("minLength"), schema.get("maxLength")
    if low is not None and len(value) < low:
        causes.invalid(path, value, f"{_name(path)} in body should be at least {low} chars long")
    if high is not None and len(value) > high:
        causes.too_long(path, high)
        return
    pattern = schema.get("pattern")
    if pattern and len(value) <= MAX_MATCHED_CHARS:
        matcher = compiled(pattern)
        if matcher is not None and not matcher.search(value):
            causes.invalid(path, value, f"{_name(path)} in body should match '{pattern}'")
    form = schema.get("format", "")
    if form in _FORMATS and not _FORMATS[form](value):
        causes.invalid(path, value, f'{_name(path)} in body must be of type {form}: "{value}"')


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of a schema; None for one that Python does not understand (RE2 has its own spellings)."""
    try:
        return re.compile(pattern.replace(r"\z", r"\Z"))
    except re.error:
        return None


def _check_number(causes: Causes, path: str, value: float, schema: Object) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.invalid(path, value, f"{_name(path)} in body should be {word} {low:g}")
    if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.invalid(path, value, f"{_name(path)} in body should be {word} {high:g}")
    step = schema.get("multipleOf")
    if step and value % step:
        causes.invalid(path, value, f"{_name(path)} in body should be a multiple of {step:g}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits is not None and not -(1 << bits) <= value < 1 << bits:
        causes.invalid(path, value, f'{_name(path)} in body must be of type {schema["format"]}: "{value}"')


def _check_combinations(causes: Causes, path: str, value: Any, schema: Object) -> None:
    def good(one: Object) -> bool:
        inner = Causes()
        check(inner, path, value, one)
        return not inner

    for one in schema.get("allOf", ()):
        check(causes, path, value, one)
    if "anyOf" in schema and not any(good(one) for one in schema["anyOf"]):
        causes.invalid(path, value, f"{_name(path)} in body must validate at least one schema (anyOf)")
    if "oneOf" in schema:
        count = sum(good(one) for one in schema["oneOf"])
        if count != 1:
            found = f"Found {count} valid alternatives" if count else "Found none valid"
            detail = f"{_name(path)} in body must validate one and only one schema (oneOf). {found}"
            causes.invalid(path, value, detail)
    if "not" in schema and good(schema["not"]):
        causes.invalid(path, value, f"{_name(path)} in body must not validate the schema (not)")


def _is_time(text: str) -> bool:
    try:
        times.parse_time(text)
    except times.InvalidTime:
        return False
    return True


def _is_address(version: int) -> Callable[[str], bool]:
    def check_address(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check_address


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


_FORMATS: Final[dict[str, Callable[[str], bool]]] = {
    "byte": lambda text: _BASE64.fullmatch(text) is not None,
    "cidr": _is_network,
    "date": lambda text: _DATE.fullmatch(text) is not None,
    "date-time": _is_time,
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}
