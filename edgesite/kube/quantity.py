"""Quantities of resources ("500m", "1.5Gi", "12e6"): exact values, canonical text, arithmetic.

A quantity is a whole number of billionths (10^-9 is the smallest step of the API), so that all arithmetic is exact. The suffix that it
was written with is remembered as its format, for printing only: 1Gi equals 1073741824.

Units   ``nano`` is billionths of the unit that the resource has (cores, bytes).
Errors  InvalidQuantity, with kube-apiserver's texts. Nothing else leaves.
State   None.
Source  apimachinery pkg/api/resource, documentation of Quantity (grammar, canonical form, rounding, cap).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = ["ZERO", "Format", "InvalidQuantity", "Quantity", "canonical", "format_quantity", "of", "parse"]

NANO: Final = 10**9
MAX_EXPONENT: Final = 300  #: Beyond it a number says nothing about a machine; refusing keeps text and work small.
_MAX_BINARY: Final = ((1 << 63) - 1) * NANO

_PATTERN: Final = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]*))?|\.(?P<only>[0-9]+))(?P<suffix>[eEinumkKMGTP]*[-+]?[0-9]*)"
)
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIX: Final = ("", *_BINARY)
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}

_WRONG_FORM: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_WRONG_NUMBER: Final = "unable to parse numeric part of quantity"
_WRONG_SUFFIX: Final = "unable to parse quantity's suffix"


class InvalidQuantity(ValueError):
    """The text is no quantity."""


class Format(Enum):
    """How a quantity is printed."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An exact amount. Compares and hashes by value; ``str`` gives the canonical text."""

    nano: int
    format: Format = field(default=Format.DECIMAL_SI, compare=False)

    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return _up(self.nano, NANO)

    def milli_value(self) -> int:
        """Thousandths, rounded away from zero."""
        return _up(self.nano, NANO // 1000)

    def __bool__(self) -> bool:
        return self.nano != 0

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __mul__(self, times: int) -> Quantity:
        return Quantity(self.nano * times, self.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.format)

    def __str__(self) -> str:
        return format_quantity(self)


ZERO: Final = Quantity(0)


def of(units: int, format: Format = Format.DECIMAL_SI) -> Quantity:
    """Make a quantity of whole units."""
    return Quantity(units * NANO, format)


def parse(value: str | int | float) -> Quantity:
    """Read a quantity; JSON numbers count as their text. Raises InvalidQuantity."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidQuantity(_WRONG_FORM)
    text = value if isinstance(value, str) else repr(value)
    match = _PATTERN.fullmatch(text)
    if match is None or len(text) > 2 * MAX_EXPONENT:
        raise InvalidQuantity(_WRONG_FORM)
    whole, part = match["whole"] or "0", match["part"] or match["only"] or ""
    digits = int(whole + part)
    suffix = match["suffix"]
    if (shift := _BINARY.get(suffix)) is not None:
        nano, form = _binary(digits, len(part), shift)
    else:
        exponent, form = _decimal_exponent(suffix)
        places = exponent - len(part) + 9
        nano = digits * 10**places if places >= 0 else _up(digits, 10**-places)
    return Quantity(-nano if match["sign"] == "-" else nano, form)


def _binary(digits: int, places: int, shift: int) -> tuple[int, Format]:
    nano = min(_up((digits << shift) * NANO, 10**places), _MAX_BINARY)
    # A fraction of one has no binary suffix to be printed with.
    return nano, Format.DECIMAL_SI if 0 < nano < NANO else Format.BINARY_SI


def _decimal_exponent(suffix: str) -> tuple[int, Format]:
    if (exponent := _DECIMAL.get(suffix)) is not None:
        return exponent, Format.DECIMAL_SI
    if suffix[:1] not in ("e", "E") or not re.fullmatch(r"[-+]?[0-9]+", suffix[1:]):
        raise InvalidQuantity(_WRONG_SUFFIX)
    exponent = int(suffix[1:])
    if exponent > MAX_EXPONENT:
        raise InvalidQuantity(_WRONG_NUMBER)
    return max(exponent, -MAX_EXPONENT), Format.DECIMAL_EXPONENT


def canonical(value: str | int | float) -> str:
    """Return the text that the API server stores for ``value``: "1000m" becomes "1". Raises InvalidQuantity."""
    return format_quantity(parse(value))


def format_quantity(quantity: Quantity) -> str:
    """Return the canonical text: no fraction, the largest suffix that loses nothing."""
    nano = abs(quantity.nano)
    sign = "-" if quantity.nano < 0 else ""
    if nano == 0:
        return "0"
    if quantity.format is Format.BINARY_SI and nano >= 1024 * NANO and nano % NANO == 0:
        units, steps = nano // NANO, 0
        while units % 1024 == 0 and steps < len(_BINARY):
            units //= 1024
            steps += 1
        return f"{sign}{units}{_BINARY_SUFFIX[steps]}"
    number, exponent = nano, -9
    highest = MAX_EXPONENT if quantity.format is Format.DECIMAL_EXPONENT else 18
    while number % 1000 == 0 and exponent < highest:
        number //= 1000
        exponent += 3
    if quantity.format is Format.DECIMAL_EXPONENT:
        return f"{sign}{number}e{exponent}" if exponent else f"{sign}{number}"
    return f"{sign}{number}{_DECIMAL_SUFFIX[exponent]}"


def _up(number: int, by: int) -> int:
    """Divide, rounding away from zero."""
    return -(-number // by) if number >= 0 else number // by
