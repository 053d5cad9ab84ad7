"""What a sink is: a place outside that takes values.

A sink is used by one task; `send` ends at a deadline of the caller's. After an OSError the sink makes its connection anew when it is used again.

Units   ``at_ms`` is milliseconds since the Unix epoch.
Errors  OSError: away, the same values again later. Refused: what is sent again would be refused again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from edgesite.mapper.driver import Host

__all__ = ["Away", "Outside", "Refused", "Route", "Sample", "Sink", "mapping", "number", "text", "wall_text"]

_MOST_CHARS: Final = 1024


class Refused(Exception):
    """The sink will never take these values: all of the batch, or those at ``places``. No secrets in the text."""

    def __init__(self, why: str, places: Sequence[int] = ()) -> None:
        super().__init__(why)
        self.places = places


class Away(OSError):
    """Not now; ``after_s`` is when the sink wants to be asked again, if it has said so. ``refused``: why the first that was not taken never will be."""

    def __init__(self, why: str, after_s: float = 0.0, refused: str = "") -> None:
        super().__init__(why)
        self.after_s = after_s
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a property. ``detail`` is the sink's own part of ``pushMethod``."""

    namespace: str
    device: str
    property: str
    type: str
    value: str
    at_ms: int
    detail: Any = None


class Sink(Protocol):
    """See the module docstring. One that is sure of single values says in ``taken`` how many of a batch it was rid of when `send` failed."""

    most: int  #: values in a batch

    async def send(self, batch: Sequence[Sample]) -> None:
        """Return once all are taken. Raises OSError, Refused."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What sinks use: the process, and the variables of its environment that hold credentials."""

    host: Host
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Route:
    """Where the values of one property go. Routes of one kind with equal keys share a sink."""

    kind: str
    key: Hashable
    open: Callable[[Outside], Sink]
    detail: Any = None


# Reading ``pushMethod``


def mapping(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is an object, whatever the case of its name; {} if there is none. Raises ValueError."""
    value = next((value for key, value in section.items() if key.lower() == name.lower()), None)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is no object")
    return value


def text(section: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """Raises ValueError."""
    value = section.get(name)
    if value in (None, ""):
        if needed:
            raise ValueError(f"{name} is missing")
        return ""
    if not isinstance(value, str) or len(value) > _MOST_CHARS or not value.isprintable():
        raise ValueError(f"{name} is no printable text of at most {_MOST_CHARS} characters")
    return value


def number(section: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """A missing one is 0. Raises ValueError."""
    value = section.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is no whole number from {least} to {most}")
    return value


def wall_text(at_ms: int) -> str:
    """A time as KubeEdge's mappers write it, in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
