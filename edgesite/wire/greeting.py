"""How two of our own ends find each other, in messages that a KubeEdge peer takes for keepalives or never gets.

An edge of ours puts a greeting in the content of its first keepalive, where KubeEdge has "ping" and reads nothing. A cloud of
ours answers each keepalive of a peer that greeted; a Go edge, which greets nobody, gets no answer. After its greeting the
edge tells what it holds, so that the cloud sends only what differs.

    edge → cloud   keepalive  {"edgesite": 1, "features": ["holdings"]}
    cloud → edge   keepalive  {"edgesite": 1, "features": ["holdings"]}      parent: the greeting
    edge → cloud   holdings   {"objects": [[uid, version, type, namespace, name], ...]}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgesite.wire.delivery import ObjectRef
from edgesite.wire.message import InvalidMessage, Message

__all__ = ["FEATURES", "HOLDINGS", "features_of", "greeting", "holdings_content", "parse_holdings"]

HOLDINGS: Final = "holdings"  #: the operation, and the feature's name
FEATURES: Final = frozenset({HOLDINGS})
_MARK: Final = "edgesite"
_VERSION: Final = 1


def greeting(features: Iterable[str] = FEATURES) -> dict[str, Any]:
    """Return the content of a greeting."""
    return {_MARK: _VERSION, "features": sorted(features)}


def features_of(message: Message) -> frozenset[str] | None:
    """Return what the sender can do, or None if this is no greeting: the sender is not one of ours."""
    content = message.content
    if not isinstance(content, dict) or not isinstance(content.get(_MARK), int):
        return None
    features = content.get("features")
    return frozenset(one for one in features if isinstance(one, str)) if isinstance(features, list) else frozenset()


def holdings_content(objects: Iterable[ObjectRef]) -> dict[str, Any]:
    return {"objects": [[one.uid, one.version, one.type, one.namespace, one.name] for one in objects]}


def parse_holdings(message: Message) -> tuple[ObjectRef, ...]:
    """Return what an edge holds. Raises InvalidMessage."""
    rows = message.object().get("objects")
    if not isinstance(rows, list):
        raise InvalidMessage("holdings without objects")
    found = []
    for row in rows:
        match row:
            case [str(uid), int(version), str(type_), str(namespace), str(name)] if uid and version >= 0:
                found.append(ObjectRef(uid, version, type_, namespace, name))
            case _:
                raise InvalidMessage(f"holdings with a bad row: {row!r:.80}")
    return tuple(found)
