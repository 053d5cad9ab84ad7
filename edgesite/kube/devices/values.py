"""Values of twins: texts that their type allows.

    problem(type, value)      "" or why not, in KubeEdge's words
    wished(type, value)       a desired value as its twin has it
    command(data)             bytes that a manifest names, in base64 or as a list of numbers; None if they are none
    same_type(said, type)     whether a word for a type means this one

Types are "string", "int", "float", "double", "boolean", "bytes"; "integer" and "bool" are taken too, "" is "string".
KubeEdge's own edge knows neither "double" nor "bytes", and refuses them.

Errors  None raised.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtcommon (texts); Go's strconv (which texts are numbers, and booleans to mappers).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

__all__ = ["NOT_ALLOWED", "TYPES", "canonical_type", "command", "is_number", "number", "problem", "same_type", "wished"]

TYPES: Final = ("string", "int", "float", "double", "boolean", "bytes")
NOT_ALLOWED: Final = "the value type is not allowed"
_NOT_INT: Final = "the value is not int or integer"
_NOT_FLOAT: Final = "the value is not float"
_NOT_BOOL: Final = "the bool value must be true or false"
_INT: Final = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_ODD_FLOAT: Final = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "False"})
_ALIASES: Final = {"": "string", "integer": "int", "bool": "boolean", "stream": "string"}
_ALIKE: Final = {"float": "double"}


def canonical_type(word: str) -> str:
    """The name of a type as it is stored; a word that is none as it is."""
    lower = word.lower()
    return _ALIASES.get(lower, lower)


def same_type(said: str, type_: str) -> bool:
    """Whether both words allow the same values."""
    one, other = canonical_type(said), canonical_type(type_)
    return _ALIKE.get(one, one) == _ALIKE.get(other, other)


def is_number(type_: str) -> bool:
    return type_ in ("int", "integer", "float", "double")


def number(type_: str, value: str) -> int | float | None:
    """The value of a number's text; None if it is none."""
    if type_ in ("int", "integer"):
        if not _INT.fullmatch(value):
            return None
        whole = int(value)
        return whole if -(1 << 63) <= whole < 1 << 63 else None
    if len(value) > 512 or not (_FLOAT.fullmatch(value) or _ODD_FLOAT.fullmatch(value)):
        return None
    real = float(value)
    return None if real in (float("inf"), float("-inf")) and not _ODD_FLOAT.fullmatch(value) else real


def problem(type_: str, value: str) -> str:
    """Return why a type does not allow a value; "" if it does."""
    if type_ in ("string", "", "bytes", "stream"):
        return ""
    if type_ in ("int", "integer"):
        return "" if number("int", value) is not None else _NOT_INT
    if type_ in ("float", "double"):
        return "" if number(type_, value) is not None else _NOT_FLOAT
    if type_ in ("boolean", "bool"):
        return "" if value in ("true", "false") else _NOT_BOOL
    return "" if type_ == "deleted" else NOT_ALLOWED


def wished(type_: str, value: str) -> str:
    """A desired value as twins have it: a boolean may be wished for in any word that KubeEdge's mappers read as one, as "0"."""
    if type_ not in ("boolean", "bool"):
        return value
    return "true" if value in _TRUE else "false" if value in _FALSE else value


def command(data: Any) -> bytes | None:
    try:
        if isinstance(data, str):
            return base64.b64decode(data, validate=True)
        return bytes(data) if isinstance(data, list) and not any(isinstance(one, bool) for one in data) else None
    except (TypeError, ValueError, binascii.Error):
        return None
