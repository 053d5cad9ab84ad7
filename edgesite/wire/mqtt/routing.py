"""Who gets a message, in which quality: overlapping subscriptions made one, shared ones given to one of their members.

Source  OASIS, MQTT Version 5.0, sections 3.3.4, 3.8.3.1 and 4.8.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from edgesite.wire.mqtt.messages import Message
from edgesite.wire.mqtt.session import Grant, Session

__all__ = ["Entry", "Share", "Target", "deliveries"]


class Target(Protocol):
    """A session, or a part of the host."""

    def deliver(self, message: Message, qos: int, retain: bool, ids: tuple[int, ...], now: float) -> bool: ...


class Entry:
    """One subscription."""

    __slots__ = ("grant", "target")

    def __init__(self, target: Target, grant: Grant) -> None:
        self.target = target
        self.grant = grant


class Share:
    """The members of a shared subscription, by client id; they take turns."""

    __slots__ = ("_turn", "members")

    def __init__(self) -> None:
        self.members: dict[str, Entry] = {}
        self._turn = 0

    def pick(self, may_read: Callable[[Target], bool]) -> Entry | None:
        """The next one that is connected; if none is, the next one that will get it later. Who may not read it takes it from nobody."""
        members = [one for one in self.members.values() if may_read(one.target)]
        self._turn += 1
        for offset in range(len(members)):
            entry = members[(self._turn + offset) % len(members)]
            if isinstance(entry.target, Session) and entry.target.connection is not None:
                return entry
        return members[self._turn % len(members)] if members else None


MayRead = Callable[[Target, str], bool]
_Delivery = tuple[Target, int, bool, tuple[int, ...]]


def deliveries(
    found: list[Entry | Share], message: Message, origin: Target | None, may_read: MayRead
) -> Iterable[_Delivery]:
    """Give target, QoS, the retain flag and subscription ids of each delivery; a client gets a message once, but for shared subscriptions."""
    if len(found) == 1:
        only = found[0]
        if isinstance(only, Entry):
            return () if only.target is origin and only.grant.wanted.no_local else (_one(only, message),)
    return _several(found, message, origin, may_read)


def _one(entry: Entry, message: Message) -> _Delivery:
    wanted, number = entry.grant.wanted, entry.grant.id
    qos = wanted.qos if wanted.qos < message.qos else message.qos
    return entry.target, qos, message.retain and wanted.retain_as_published, (number,) if number else ()


def _several(
    found: list[Entry | Share], message: Message, origin: Target | None, may_read: MayRead
) -> Iterator[_Delivery]:
    merged: dict[int, _Delivery] = {}
    for value in found:
        if isinstance(value, Share):
            picked = value.pick(lambda target: may_read(target, message.topic))
            if picked is not None:
                yield _one(picked, message)
            continue
        target = value.target
        if target is origin and value.grant.wanted.no_local:
            continue
        new = _one(value, message)
        old = merged.get(id(target))
        merged[id(target)] = (
            new if old is None else (target, max(old[1], new[1]), old[2] or new[2], tuple(sorted(old[3] + new[3])))
        )
    yield from merged.values()
