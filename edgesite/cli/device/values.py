"""A device as its watcher sees it: what is wanted and reported of each property, and what has changed since it was last seen.

Errors  None: objects of odd shape are read as far as they make sense.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "Seen", "seen"]


@dataclass(frozen=True, slots=True)
class Change:
    """One value is another. ``what`` is "desired", "reported" or, of the device itself, "state"."""

    property: str
    what: str
    value: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Values by property, "" where there is none."""

    model: str
    node: str
    state: str
    desired: Mapping[str, str]
    reported: Mapping[str, str]

    @property
    def properties(self) -> list[str]:
        return list({**self.desired, **self.reported})

    def changes(self, before: Seen | None) -> Iterator[Change]:
        """What is other than ``before``."""
        if self.state != (before.state if before else ""):
            yield Change("", "state", self.state)
        names = {**dict.fromkeys(before.properties if before else ()), **dict.fromkeys(self.properties)}
        for name in names:
            for what, values, old in (
                ("desired", self.desired, before.desired if before else {}),
                ("reported", self.reported, before.reported if before else {}),
            ):
                value = values.get(name, "")
                if value != old.get(name, ""):
                    yield Change(name, what, value)


def seen(device: Mapping[str, Any]) -> Seen:
    """Read a Device of v1beta1."""
    spec, status = _dict(device.get("spec")), _dict(device.get("status"))
    desired = {
        str(one.get("name")): _text(_dict(one.get("desired")).get("value")) for one in _dicts(spec.get("properties"))
    }
    reported = {
        str(one.get("propertyName")): _text(_dict(one.get("reported")).get("value"))
        for one in _dicts(status.get("twins"))
    }
    return Seen(
        _text(_dict(spec.get("deviceModelRef")).get("name")),
        _text(spec.get("nodeName")),
        _text(status.get("state")),
        desired,
        reported,
    )


def _text(value: Any) -> str:
    """One printable line: values come from machines, and go to terminals."""
    if value is None:
        return ""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
