"""Rules for topics and filters, and the tree that finds who wants a topic.

    check_topic, check_filter    raise ProtocolError for what is none
    matches(filter, topic)       wildcards; those of the first level leave topics with "$" alone
    share_of(filter)             ("group", "filter") of "$share/group/filter"
    Tree                         values by filter; `find(topic)`

Bounds  `LEVELS` levels in a topic or filter; `CACHED` topics whose finds are remembered.
Source  OASIS, MQTT Version 5.0, sections 4.7 and 4.8.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from edgesite.wire.mqtt.reasons import ProtocolError, Reason

__all__ = ["CACHED", "LEVELS", "Tree", "check_filter", "check_topic", "is_topic", "matches", "share_of"]

V = TypeVar("V")
LEVELS: Final = 128  #: a filter of 60,000 slashes would cost everybody
CACHED: Final = 4096
_MOST_BYTES: Final = 65535
_REMEMBERED: Final = 512  #: characters: clients choose topics, and they may have 64 KB
_SHARE: Final = "$share/"


def is_topic(topic: str) -> bool:
    """Whether something may be published there."""
    return (
        bool(topic)
        and "#" not in topic
        and "+" not in topic
        and "\0" not in topic
        and topic.count("/") < LEVELS
        and _fits(topic)
    )


def _fits(text: str) -> bool:
    """Whether a packet can hold it: what the host wants to publish has been in no packet yet."""
    if text.isascii():
        return len(text) <= _MOST_BYTES
    try:
        return len(text.encode()) <= _MOST_BYTES
    except UnicodeEncodeError:
        return False


def check_topic(topic: str) -> None:
    """Raise ProtocolError unless something may be published there."""
    if not is_topic(topic):
        raise ProtocolError(Reason.BAD_TOPIC, "that is no topic to publish to")


def check_filter(text: str) -> None:
    """Raise ProtocolError for a filter that is none, of a shared subscription too."""
    if text.startswith(_SHARE):
        group, text = share_of(text) or ("", "")
        if not group or "+" in group or "#" in group:
            raise ProtocolError(Reason.BAD_FILTER, "the name of a shared subscription is missing or has a wildcard")
    if not text or "\0" in text or text.count("/") >= LEVELS or not _fits(text):
        raise ProtocolError(Reason.BAD_FILTER, "a filter is empty, too long, or has too many levels")
    if "#" not in text and "+" not in text:
        return
    levels = text.split("/")
    for number, level in enumerate(levels, 1):
        if ("#" in level and (level != "#" or number < len(levels))) or ("+" in level and level != "+"):
            raise ProtocolError(Reason.BAD_FILTER, "a wildcard stands for a whole level, and # at the end")


def share_of(text: str) -> tuple[str, str] | None:
    """Return group and filter of a shared subscription, None for any other."""
    if not text.startswith(_SHARE):
        return None
    group, _, rest = text[len(_SHARE) :].partition("/")
    return group, rest


def matches(pattern: str, topic: str) -> bool:
    """Whether a filter, without ``$share``, takes a topic."""
    if "#" not in pattern and "+" not in pattern:
        return pattern == topic
    if topic.startswith("$") and not pattern.startswith("$"):
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number >= len(given) or level not in ("+", given[number]):
            return False
    return len(wanted) == len(given)


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[object, V] = {}


class Tree(Generic[V]):
    """Values by filter and key. What `find` gives must not be changed."""

    __slots__ = ("_cache", "_root", "size")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self._cache: dict[str, list[V]] = {}
        self.size = 0

    def put(self, pattern: str, key: object, value: V) -> None:
        """Set the value of ``key`` at a filter."""
        node = self._root
        for level in pattern.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        self.size += key not in node.values
        node.values[key] = value
        self._cache.clear()

    def remove(self, pattern: str, key: object) -> None:
        """Forget the value of ``key`` at a filter; without effect if there is none."""
        path: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in pattern.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        if node.values.pop(key, None) is None:
            return
        self.size -= 1
        self._cache.clear()
        while path and not node.values and not node.children:
            node, level = path.pop()
            del node.children[level]

    def find(self, topic: str) -> list[V]:
        """Return the values whose filters match."""
        found = self._cache.get(topic)
        if found is None:
            found = []
            levels = topic.split("/")
            self._collect(self._root, levels, 0, found)
            if len(self._cache) >= CACHED:
                self._cache.clear()
            if len(topic) <= _REMEMBERED:
                self._cache[topic] = found
        return found

    def _collect(self, node: _Node[V], levels: list[str], at: int, found: list[V]) -> None:
        children = node.children
        wild = at > 0 or not levels[0].startswith("$")
        if wild and (rest := children.get("#")) is not None:
            found.extend(rest.values.values())
        if at == len(levels):
            found.extend(node.values.values())
            return
        if (child := children.get(levels[at])) is not None:
            self._collect(child, levels, at + 1, found)
        if wild and (child := children.get("+")) is not None:
            self._collect(child, levels, at + 1, found)
