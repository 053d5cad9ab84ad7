"""Decoding an object into its kind: what the API server's typed decoding does to JSON, done along the schema.

Types are checked, unknown fields are dropped and reported, nulls and empty optional lists and maps vanish, quantities and
times take their canonical form, and required scalars that are missing read 0, false or "": clients rely on their being there.
Nothing is defaulted and nothing is refused for missing here: see `defaults` and `validation`.

Units   Times are RFC 3339 text; quantities are Kubernetes quantity text.
Errors  ApiError 400 in the words of kube-apiserver, which are those of Go's JSON decoder.
Source  Messages of Go's encoding/json and of apimachinery (texts only).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from edgesite.kube import quantity, times
from edgesite.kube.errors import ApiError, bad_request
from edgesite.kube.schema import Field, Schemas

__all__ = ["Decoded", "decode", "decode_metadata", "duplicate_fields", "path_text", "strict_error"]

OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
MAX_DEPTH: Final = 100  #: of nested structs; only the schemas in CRDs nest without end
_INTEGER_RANGES: Final = {"int32": 1 << 31, "int64": 1 << 63}
_Path = tuple[Any, str | int] | None  # (path of the parent, field, key or index)


class Decoded(NamedTuple):
    """The object as its kind holds it, and the paths of the fields that the kind does not have."""

    object: dict[str, Any]
    unknown: list[str]

    def warnings(self) -> list[str]:
        """The unknown fields as Warning headers and strict errors name them."""
        return [f'unknown field "{path}"' for path in self.unknown]


def decode(schemas: Schemas, group: str, version: str, kind: str, obj: Any) -> Decoded:
    """Return ``obj`` as the kind holds it; ``obj`` itself stays as it was. Of a kind without a schema
    only metadata is looked at.

    Raises ApiError (400).
    """
    definition = schemas.definition_of(group, version, kind)
    if definition is None:
        meta, unknown = decode_metadata(schemas, kind, version, obj)
        return Decoded({**obj, "metadata": meta} if "metadata" in obj else obj, unknown)
    walk = _Walk(schemas)
    try:
        if not isinstance(obj, dict):
            raise _Unusable(f"json: cannot unmarshal {_json_type(obj)} into Go value of type {_go_name(definition)}")
        return Decoded(walk.struct(definition, obj, None), walk.unknown)
    except _Unusable as exc:
        raise _unusable(kind, version, str(exc)) from None


def decode_metadata(schemas: Schemas, kind: str, version: str, obj: Any) -> tuple[dict[str, Any], list[str]]:
    """Decode the metadata of an object whose kind has no definition. Returns it and its unknown fields. Raises ApiError (400)."""
    walk = _Walk(schemas)
    try:
        if not isinstance(obj, dict):
            raise _Unusable(f"json: cannot unmarshal {_json_type(obj)} into Go value of type map[string]interface {{}}")
        meta = obj.get("metadata")
        if meta is not None and not isinstance(meta, dict):
            name = _go_name(OBJECT_META)
            raise _Unusable(
                f"json: cannot unmarshal {_json_type(meta)} into Go struct field {kind}.metadata of type {name}"
            )
        return walk.struct(OBJECT_META, meta or {}, (None, "metadata")), walk.unknown
    except _Unusable as exc:
        raise _unusable(kind, version, str(exc)) from None


def strict_error(kind: str, version: str, problems: list[str]) -> ApiError:
    """The refusal of a request with fieldValidation=Strict; ``problems`` as `Decoded.warnings` and `duplicate_fields` give them."""
    return _unusable(kind, version, "strict decoding error: " + ", ".join(problems))


def duplicate_fields(body: bytes) -> list[str]:
    """Name the members that stand twice in one object of a JSON text, as strict decoding does; [] for what is no JSON."""
    found = False

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        plain = dict(members)
        if len(plain) == len(members):
            return plain
        found = True
        marked = _Marked(plain)
        seen: set[str] = set()
        marked.duplicates = [name for name, _ in members if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        return marked

    try:
        value = json.loads(body, object_pairs_hook=pairs)
        return _marked_paths(value, None) if found else []
    except (ValueError, RecursionError):
        return []


class _Marked(dict[str, Any]):
    """An object that was written with some members twice."""

    duplicates: list[str]


class _Unusable(Exception):
    """The object cannot be of its kind; the text is Go's."""


class _Walk:
    """One pass over one object."""

    def __init__(self, schemas: Schemas) -> None:
        self.unknown: list[str] = []
        self._schemas = schemas
        self._depth = 0

    def struct(self, name: str, obj: dict[str, Any], path: _Path) -> dict[str, Any]:
        definition = self._schemas.definition(name)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Unusable("exceeded max depth")
        fields = definition.fields
        result: dict[str, Any] = {}
        for key, value in obj.items():
            field = fields.get(key)
            if field is None:
                self.unknown.append(path_text((path, key)))
            elif value is not None:
                decoded = self._value(field, value, (path, key), name)
                if decoded or key in definition.required or field.type not in ("array", "map"):
                    result[key] = decoded
        for key, zero in self._schemas.zeros(name).items():
            result.setdefault(key, zero)
        self._depth -= 1
        return result

    def _value(self, field: Field, value: Any, path: _Path, owner: str) -> Any:
        kind = field.type
        if kind == "string":
            if type(value) is str:
                return value
        elif kind == "struct":
            if type(value) is dict:
                return self.struct(field.definition, value, path)
        elif kind == "array":
            if type(value) is list:
                return self._array(field, value, path, owner)
        elif kind == "map":
            if type(value) is dict:
                return self._map(field, value, path, owner)
        elif kind == "integer":
            return self._integer(field, value, path, owner)
        elif kind == "boolean":
            if type(value) is bool:
                return value
        elif kind in _SPECIAL:
            return _SPECIAL[kind](field, value, path, owner)
        elif kind == "any" or type(value) is dict:
            return value
        raise _mismatch(field, value, path, owner)

    def _array(self, field: Field, values: list[Any], path: _Path, owner: str) -> list[Any]:
        items = field.items or _ANY
        if items.type == "string" and all(type(one) is str for one in values):
            return values
        return [
            _zero(items) if one is None else self._value(items, one, (path, index), owner)
            for index, one in enumerate(values)
        ]

    def _map(self, field: Field, values: dict[str, Any], path: _Path, owner: str) -> dict[str, Any]:
        items = field.items or _ANY
        return {
            key: _zero(items) if one is None else self._value(items, one, path, owner) for key, one in values.items()
        }

    def _integer(self, field: Field, value: Any, path: _Path, owner: str) -> Any:
        limit = _INTEGER_RANGES[field.format or "int64"]
        if type(value) is int and -limit <= value < limit:
            return value
        raise _mismatch(field, value, path, owner)


def _number(field: Field, value: Any, path: _Path, owner: str) -> Any:
    if type(value) in (int, float):
        return value
    raise _mismatch(field, value, path, owner)


def _int_or_string(field: Field, value: Any, path: _Path, owner: str) -> Any:
    if type(value) is str or (type(value) is int and -(1 << 31) <= value < 1 << 31):
        return value
    raise _mismatch(field, value, path, owner)


_PLAIN_QUANTITY: Final = re.compile(r"[1-9][0-9]{0,2}(m|k|M|G|T|Ki|Mi|Gi|Ti)?", re.ASCII)  # canonical as it stands


def _quantity(field: Field, value: Any, path: _Path, owner: str) -> str:
    text = value.strip() if type(value) is str else json.dumps(value)
    if _PLAIN_QUANTITY.fullmatch(text):
        return text
    try:
        return quantity.canonical(text)
    except ValueError as exc:
        raise _Unusable(str(exc)) from None


def _time(field: Field, value: Any, path: _Path, owner: str) -> str:
    if type(value) is not str:
        raise _mismatch(field, value, path, owner)
    try:
        seconds = times.parse_time(value)
    except times.InvalidTime as exc:
        raise _Unusable(str(exc)) from None
    return value if len(value) == 20 and value[-1] == "Z" else times.format_time(int(seconds // 1))


def _microtime(field: Field, value: Any, path: _Path, owner: str) -> str:
    if type(value) is not str:
        raise _mismatch(field, value, path, owner)
    try:
        nanoseconds = times.parse_time_ns(value)
    except times.InvalidTime as exc:
        raise _Unusable(str(exc)) from None
    if len(value) == 27 and value[-1] == "Z":
        return value
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{times.format_time(seconds)[:-1]}.{rest // 1000:06d}Z"


def _bytes(field: Field, value: Any, path: _Path, owner: str) -> str:
    if type(value) is not str:
        raise _mismatch(field, value, path, owner)
    text = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    if not _BASE64.fullmatch(text):
        raise _Unusable(f"illegal base64 data at input byte {_bad_base64_at(text)}")
    return str(text)


_SPECIAL: Final = {
    "number": _number,
    "int-or-string": _int_or_string,
    "quantity": _quantity,
    "time": _time,
    "microtime": _microtime,
    "bytes": _bytes,
}
_ANY: Final = Field("any")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")


def _bad_base64_at(text: str) -> int:
    """Where Go's decoder stops."""
    bad = _NOT_BASE64.search(text)
    if bad is None:
        return len(text) - len(text) % 4
    at = bad.start()
    if bad.group() != "=" or at % 4 < 2:
        return at
    if at % 4 == 2 and text[at + 1 : at + 2] != "=":
        return at + 1 if at + 1 < len(text) else len(text)
    return at + 1 if at % 4 == 3 else at + 2


def _zero(field: Field) -> Any:
    """What a null among elements or map values decodes to."""
    return _ZEROS.get(field.type)


_ZEROS: Final[dict[str, Any]] = {
    "string": "",
    "bytes": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "quantity": "0",
    "int-or-string": 0,
    "struct": {},
}


def _mismatch(field: Field, value: Any, path: _Path, owner: str) -> _Unusable:
    """Go's words for a value of the wrong type; ``owner`` is the definition that the field belongs to."""
    names: list[str] = []
    while path is not None:
        path, name = path
        if isinstance(name, str):
            names.append(name)
    text = _json_type(value)
    if text == "number" and field.type in ("integer", "int-or-string", "number"):
        text = f"number {json.dumps(value)}"
    struct = owner.rpartition(".")[2]
    where = ".".join((struct, *reversed(names)))
    return _Unusable(f"json: cannot unmarshal {text} into Go struct field {where} of type {_go_type(field)}")


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "null"


_GO_SCALARS: Final = {
    "string": "string",
    "boolean": "bool",
    "number": "float64",
    "bytes": "[]uint8",
    "int-or-string": "int32",
    "quantity": "resource.Quantity",
    "time": "string",
    "microtime": "string",
    "object": "map[string]interface {}",
    "any": "interface {}",
}


def _go_type(field: Field) -> str:
    if field.type == "struct":
        return _go_name(field.definition)
    if field.type == "integer":
        return field.format or "int64"
    items = field.items or _ANY
    if field.type == "array":
        return "[]" + _go_type(items)
    if field.type == "map":
        return "v1.ResourceList" if items.type == "quantity" else "map[string]" + _go_type(items)
    return _GO_SCALARS[field.type]


def _go_name(definition: str) -> str:
    return ".".join(definition.rsplit(".", 2)[1:])


def path_text(path: _Path) -> str:
    """Write a path as strict errors do; a link is (path of the parent, field or index)."""
    parts: list[str] = []
    while path is not None:
        path, name = path
        parts.append(f"[{name}]" if isinstance(name, int) else f".{name}")
    return "".join(reversed(parts)).removeprefix(".")


def _marked_paths(value: Any, path: _Path) -> list[str]:
    problems: list[str] = []
    if isinstance(value, dict):
        if isinstance(value, _Marked):
            problems += [f'duplicate field "{path_text((path, name))}"' for name in value.duplicates]
        for name, one in value.items():
            problems += _marked_paths(one, (path, name))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            problems += _marked_paths(one, (path, index))
    return problems


def _unusable(kind: str, version: str, why: str) -> ApiError:
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')
