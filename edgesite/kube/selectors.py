"""Label and field selectors: reading, canonical text, matching.

    parse_labels("app in (a,b), !tier")      -> LabelSelector
    from_object({"matchLabels": {...}})      -> LabelSelector; None selects nothing, {} everything
    parse_fields("status.phase!=Running")    -> FieldSelector

Both are a list of requirements, all of which must hold; ``requirements`` and ``exact(key)`` let an index narrow the search first.

Errors  InvalidSelector, with the text that kube-apiserver answers (a 400) or that its validation shows. Nothing else leaves.
State   None.
Source  apimachinery pkg/labels and pkg/fields (grammar, texts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from edgesite.kube import names

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "FieldRequirement",
    "FieldSelector",
    "InvalidSelector",
    "LabelSelector",
    "Operator",
    "Requirement",
    "from_labels",
    "from_object",
    "parse_fields",
    "parse_labels",
]


class InvalidSelector(ValueError):
    """The selector cannot be read; the message is for the user."""


class Operator(StrEnum):
    """How a requirement compares; the value is what the canonical text shows."""

    EQUALS = "="
    DOUBLE_EQUALS = "=="
    NOT_EQUALS = "!="
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "!"
    GREATER = ">"
    LESS = "<"


_POSITIVE: Final = (Operator.EQUALS, Operator.DOUBLE_EQUALS, Operator.IN)
_NEGATIVE: Final = (Operator.NOT_EQUALS, Operator.NOT_IN)
_OBJECT_OPERATORS: Final = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.NOT_EXISTS,
    "Gt": Operator.GREATER,  # of node affinity only
    "Lt": Operator.LESS,
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on labels. Made by the parsers, which check it."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        operator = self.operator
        value = labels.get(self.key)
        if operator in _POSITIVE:
            return value is not None and value in self.values
        if operator in _NEGATIVE:
            return value is None or value not in self.values
        if operator is Operator.EXISTS:
            return value is not None
        if operator is Operator.NOT_EXISTS:
            return value is None
        if value is None or (number := _int64(value)) is None:
            return False
        limit = int(self.values[0])
        return number > limit if operator is Operator.GREATER else number < limit

    def __str__(self) -> str:
        operator = self.operator
        if operator is Operator.EXISTS:
            return self.key
        if operator is Operator.NOT_EXISTS:
            return f"!{self.key}"
        if operator in (Operator.IN, Operator.NOT_IN):
            return f"{self.key} {operator} ({','.join(sorted(self.values))})"
        return f"{self.key}{operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold. ``nothing`` makes one that holds for no object, which an empty list cannot say."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def is_everything(self) -> bool:
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """None counts as no labels."""
        if self.nothing:
            return False
        labels = labels or {}
        return all(one.matches(labels) for one in self.requirements)

    def exact(self, key: str) -> str | None:
        """The only value that ``key`` may have, if the selector demands one."""
        for one in self.requirements:
            if one.key == key and one.operator in _POSITIVE and len(one.values) == 1:
                return one.values[0]
        return None

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.requirements)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """Match objects that carry all of ``labels``, as selectors of Services and ReplicationControllers do."""
    return _selector(Requirement(key, Operator.EQUALS, (value,)) for key, value in (labels or {}).items())


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """Return the selector of a LabelSelector object. Raises InvalidSelector."""
    if selector is None:
        return NOTHING
    found = [_checked(key, Operator.EQUALS, (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(one.get("operator", ""))
        if operator is None:
            raise InvalidSelector(f'"{one.get("operator", "")}" is not a valid label selector operator')
        found.append(_checked(one.get("key", ""), operator, tuple(one.get("values") or ())))
    return _selector(found)


def _selector(requirements: Iterable[Requirement]) -> LabelSelector:
    ordered = tuple(sorted(requirements, key=lambda one: one.key))
    return LabelSelector(ordered) if ordered else EVERYTHING


def _checked(key: str, operator: Operator, values: tuple[str, ...]) -> Requirement:
    """Make a requirement. Raises InvalidSelector with all that is wrong."""
    problems = []
    if wrong := names.qualified_name_problems(key):
        problems.append(f'key: Invalid value: "{key}": {"; ".join(wrong)}')
    shown = "[" + ", ".join(f'"{one}"' for one in values) + "]"
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            problems.append(f"values: Invalid value: {shown}: for 'in', 'notin' operators, values set can't be empty")
    elif operator in (Operator.EXISTS, Operator.NOT_EXISTS):
        if values:
            problems.append(f"values: Invalid value: {shown}: values set must be empty for exists and does not exist")
    elif operator in (Operator.GREATER, Operator.LESS):
        if len(values) != 1:
            problems.append(f"values: Invalid value: {shown}: for 'Gt', 'Lt' operators, exactly one value is required")
        problems += [
            f"values[{at}]: Invalid value: \"{one}\": for 'Gt', 'Lt' operators, the value must be an integer"
            for at, one in enumerate(values)
            if _int64(one) is None
        ]
    for at, value in enumerate(values):
        if wrong := names.label_value_problems(value):
            problems.append(f'values[{at}][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')
    if problems:
        raise InvalidSelector(problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]")
    return Requirement(key, operator, values)


def _int64(text: str) -> int | None:
    if not _INTEGER.fullmatch(text) or len(text) > 20:
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None


# ---- label selectors as text ------------------------------------------------------------------------------------------

_BINARY: Final = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.EQUALS,
    "==": Operator.DOUBLE_EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER,
    "<": Operator.LESS,
}
_BINARY_TEXT: Final = "in, notin, =, ==, !=, gt, lt"
_TOKEN: Final = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),<>])|([^ \t\r\n=!(),<>]+))")
_WORD, _SYMBOL, _END = "word", "symbol", "end"


def parse_labels(text: str) -> LabelSelector:
    """Read a selector such as "app=web,tier in (a,b),!old". Raises InvalidSelector."""
    if not text:
        return EVERYTHING
    return _selector(_LabelParser(text).requirements())


class _LabelParser:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []  # kind and text
        text = text.partition("\0")[0].rstrip(" \t\r\n")
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            assert match is not None
            self._tokens.append((_SYMBOL, match[1]) if match[1] else (_WORD, match[2]))
            at = match.end()
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else (_END, "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while True:
            token = self._peek()
            if token[0] == _END:
                return found
            if not _starts_requirement(token):
                raise InvalidSelector(f"found '{token[1]}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except InvalidSelector as exc:
                raise InvalidSelector(f"unable to parse requirement: {exc}") from None
            kind, text = self._next()
            if kind == _END:
                return found
            if text != ",":
                raise InvalidSelector(f"found '{text}', expected: ',' or 'end of string'")
            if not _starts_requirement(self._peek()):
                raise InvalidSelector(f"found '{self._peek()[1]}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        kind, key = self._next()
        absent = key == "!"
        if absent:
            kind, key = self._next()
        if kind != _WORD:
            raise InvalidSelector(f"found '{key}', expected: identifier")
        if wrong := names.qualified_name_problems(key):
            raise InvalidSelector(f'<nil>: Invalid value: "{key}": {"; ".join(wrong)}')
        if absent:
            return Requirement(key, Operator.NOT_EXISTS)
        if self._at_end_of_requirement():
            return Requirement(key, Operator.EXISTS)
        _, text = self._next()
        operator = _BINARY.get(text)
        if operator is None:
            raise InvalidSelector(f"found '{text}', expected: {_BINARY_TEXT}")
        values = self._set() if operator in (Operator.IN, Operator.NOT_IN) else [self._value()]
        return _checked(key, operator, tuple(sorted(set(values))))

    def _at_end_of_requirement(self) -> bool:
        kind, text = self._peek()
        return kind == _END or text == ","

    def _value(self) -> str:
        if self._at_end_of_requirement():
            return ""
        kind, text = self._next()
        if kind != _WORD:
            raise InvalidSelector(f"found '{text}', expected: identifier")
        return text

    def _set(self) -> list[str]:
        """Values in parentheses; an empty place between commas is the empty value."""
        if (text := self._next()[1]) != "(":
            raise InvalidSelector(f"found '{text}' expected: '('")
        kind, text = self._peek()
        if kind != _WORD and text not in (",", ")"):
            raise InvalidSelector(f"found '{text}', expected: ',', ')' or identifier")
        values: list[str] = []
        place = ""  # what stands since the last comma
        while True:
            kind, text = self._next()
            if kind == _WORD:
                place = text
                after = self._peek()[1]
                if after not in (",", ")"):
                    raise InvalidSelector(f"found '{after}', expected: ',' or ')'")
            elif text == ",":
                values.append(place)
                place = ""
            elif text == ")":
                return [*values, place]
            else:
                raise InvalidSelector(f"found '{text}', expected: ',', or identifier")


def _starts_requirement(token: tuple[str, str]) -> bool:
    return token[0] == _WORD or token[1] == "!"


# ---- field selectors ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """``operator`` is EQUALS or NOT_EQUALS."""

    field: str
    operator: Operator
    value: str

    def __str__(self) -> str:
        escaped = self.value.replace("\\", r"\\").replace(",", r"\,").replace("=", r"\=")
        return f"{self.field}{self.operator}{escaped}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements must hold; a field that an object does not have counts as empty."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all(
            (fields.get(one.field, "") == one.value) is (one.operator is Operator.EQUALS) for one in self.requirements
        )

    def exact(self, field: str) -> str | None:
        """The value that ``field`` must have, if the selector demands one."""
        for one in self.requirements:
            if one.field == field and one.operator is Operator.EQUALS:
                return one.value
        return None

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.requirements)


_FIELD_OPERATORS: Final = re.compile("!=|==|=")
_FIELD_TERM: Final = re.compile(r"(?:[^\\,]|\\.|\\$)*", re.DOTALL)


def parse_fields(text: str) -> FieldSelector:
    """Read a selector such as "metadata.name=web,status.phase!=Running"; values may hold \\\\ \\, and \\=. Raises InvalidSelector."""
    found = []
    for term in sorted(_terms(text)):
        match = _FIELD_OPERATORS.search(term)
        if match is None:
            raise InvalidSelector(f"invalid selector: '{text}'; can't understand '{term}'")
        operator = Operator.NOT_EQUALS if match[0] == "!=" else Operator.EQUALS
        found.append(FieldRequirement(term[: match.start()], operator, _unescape(term[match.end() :])))
    return FieldSelector(tuple(found))


def _terms(text: str) -> Sequence[str]:
    terms, at = [], 0
    while at <= len(text):
        match = _FIELD_TERM.match(text, at)
        assert match is not None
        if match[0]:
            terms.append(match[0])
        at = match.end() + 1
    return terms


def _unescape(value: str) -> str:
    out = []
    characters = iter(value)
    for one in characters:
        if one == "\\":
            escaped = next(characters, "")
            if escaped not in ("\\", ",", "="):
                raise InvalidSelector(f"invalid field selector: invalid escape sequence: \\{escaped}")
            out.append(escaped)
        elif one in ",=":
            raise InvalidSelector(f"invalid field selector: unescaped character in value: {ord(one)}")
        else:
            out.append(one)
    return "".join(out)
