"""Bodies in YAML: read event by event into JSON values, with limits, and written for people.

PyYAML's own composer recurses in C and can be made to overflow the stack, and its resolver takes "12:30" for a number; so values are built
here, from libyaml's events, by the rules that Kubernetes' YAML library follows.

Units   Limits count levels and values, aliases followed.
Errors  ApiError BadRequest.
State   None. Only imported when a body in YAML is met.
Source  YAML 1.1; go-yaml v2 as sigs.k8s.io/yaml uses it (integers, timestamps stay text, merge keys); "y" and "n" stay text, too.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from edgesite.kube import errors

__all__ = ["MAX_DEPTH", "parse", "render"]

MAX_DEPTH: Final = 500  #: of nested lists and maps
MAX_VALUES: Final = 500_000  #: in one document; aliases cannot swell a small body beyond it

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_CONTAINER_TAGS: Final = (None, "!", f"{_TAG}map", f"{_TAG}seq")
_NONE: Final = object()
_MERGE: Final = object()
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NUMERIC: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"[-+]?(0b[01]+|0x[0-9a-fA-F]+|0o?[0-7]+|0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_JSON: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Dumper(yaml.CSafeDumper if hasattr(yaml, "CSafeDumper") else yaml.SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> Any:
        """Quote what readers would take for a number: PyYAML leaves 1e3 plain, which go-yaml reads as one."""
        return self.represent_scalar(f"{_TAG}str", data, style="'" if _is_number(data) else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def parse(body: bytes) -> Any:
    """Return the JSON value of the first document. Raises ApiError (BadRequest)."""
    try:
        return _Builder().document(body)
    except (yaml.YAMLError, ValueError) as exc:
        text = " ".join(str(exc).split())
        raise errors.bad_request(f"error converting YAML to JSON: yaml: {text}") from None


def render(value: Any) -> bytes:
    """Return a JSON value as YAML."""
    text: bytes = yaml.dump(value, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, default_flow_style=False)
    return text


@dataclass(slots=True)
class _Open:
    """A list or map whose end has not come yet."""

    value: Any
    anchor: str | None
    begun_at: int  #: how many values there were before it
    key: Any = _NONE  #: of a map: the key that waits for its value
    merged: list[Any] = field(default_factory=list)


class _Builder:
    """Builds one document."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # value, and how many values it holds
        self._count = 0
        self._root: Any = None

    def document(self, body: bytes) -> Any:
        """Raises ValueError, yaml.YAMLError."""
        for event in yaml.parse(body, Loader=_LOADER):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if event.tag not in _CONTAINER_TAGS:
                    raise ValueError(f"cannot decode {event.tag}")
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor or "")
            elif isinstance(event, yaml.DocumentEndEvent):
                break
        return self._root

    def _counted(self, values: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise ValueError("document contains excessive aliasing or too many values")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._counted(1)
        value = _scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._add(value)

    def _begin(self, value: Any, anchor: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise ValueError(f"exceeded max depth of {MAX_DEPTH}")
        if self._open and type(self._open[-1].value) is dict and self._open[-1].key is _NONE:
            raise ValueError("a key must be a string")
        self._open.append(_Open(value, anchor, self._count))
        self._counted(1)

    def _end(self) -> None:
        done = self._open.pop()
        for one in done.merged:
            for key, value in one.items():
                done.value.setdefault(key, value)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._count - done.begun_at)
        self._add(done.value)

    def _alias(self, name: str) -> None:
        if name not in self._anchors:
            raise ValueError(f"unknown anchor '{name}' referenced")
        value, size = self._anchors[name]
        self._counted(size)
        self._add(value)

    def _add(self, value: Any) -> None:
        if not self._open:
            self._root = None if value is _MERGE else value
            return
        holder = self._open[-1]
        if type(holder.value) is list:
            holder.value.append("<<" if value is _MERGE else value)
        elif holder.key is _NONE:
            holder.key = value if value is _MERGE else _key(value)
        elif holder.key is _MERGE:
            given = value if type(value) is list else [value]
            if not all(type(one) is dict for one in given):
                raise ValueError("map merge requires map or sequence of maps as the value")
            holder.merged += given
            holder.key = _NONE
        else:
            holder.value[holder.key] = "<<" if value is _MERGE else value
            holder.key = _NONE


def _key(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError("a key must be a string")


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if event.tag is None or event.tag == "!":
        return _plain(text) if event.implicit[0] else text
    kind = event.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("!!binary value contains invalid base64 data") from None
    value = _plain(text)
    if type(value) is not _KINDS.get(kind) and not (kind == "float" and type(value) is int):
        raise ValueError(f"cannot decode !!{kind} `{text}`")
    return value


_KINDS: Final[dict[str, type]] = {"int": int, "float": float, "bool": bool, "null": type(None)}


def _plain(text: str) -> Any:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return _MERGE if text == "<<" else text
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        return _integer(digits)
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        if number - number != 0:
            raise ValueError(f"{text} is no JSON number")
        return number
    if _NOT_JSON.fullmatch(text):
        raise ValueError(f"{text} is no JSON number")
    return text


def _is_number(text: str) -> bool:
    try:
        return isinstance(_plain(text), int | float)
    except ValueError:  # infinite, or none
        return True


def _integer(digits: str) -> int | float:
    sign, plain = (-1, digits[1:]) if digits[0] == "-" else (1, digits.lstrip("+"))
    octal = len(plain) > 1 and plain[0] == "0" and plain[1] not in "box"
    number = sign * int(plain, 8 if octal else 0)
    return number if -(1 << 63) <= number < 1 << 64 else float(number)
