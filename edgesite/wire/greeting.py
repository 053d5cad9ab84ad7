"""How two of our own ends find each other, in messages that a KubeEdge peer takes for keepalives or never gets.

An edge of ours puts a greeting in the content of its first keepalive, where KubeEdge has "ping" and reads nothing. A cloud of
ours answers each keepalive of a peer that greeted; a Go edge, which greets nobody, gets no answer. Who has not greeted within
`hold_s` is taken for a Go edge until it does. After its greeting the
edge tells what it holds, so that the cloud sends only what differs: first a digest; all of it only if the cloud asks.

    edge → cloud   keepalive  {"edgesite": 1, "features": ["holdings", …]}
    cloud → edge   keepalive  {"edgesite": 1, "features": ["holdings", …], "spread_s": 2.5}     parent: the greeting
    edge → cloud   holdings   {"digest": "…"}
    cloud → edge   holdings   null                                                              if it recorded something else
    edge → cloud   holdings   {"objects": [[uid, version, type, namespace, name], ...]}

A cloud whose API was restored from a backup finds edges ahead of it. It asks them to forget what they know of the versions of
these objects, and of their ends, and is told again what is held: such an object has version 0, and takes any state.

    cloud → edge   holdings   {"forget": [uid, ...]}

Features: holdings; digest; forget; frames (`edgesite.wire.frames`); deflate-1 (frames may be deflated); delta (`edgesite.wire.delta`);
renew (a lease is renewed by its time alone).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from edgesite.wire.delivery import ObjectRef
from edgesite.wire.delta import DELTA
from edgesite.wire.message import InvalidMessage, Message
from edgesite.wire.renewal import RENEW

__all__ = [
    "DEFLATE",
    "DIGEST",
    "FEATURES",
    "FORGET",
    "FRAMES",
    "HOLDINGS",
    "NEAR_FEATURES",
    "agree",
    "digest_of",
    "features_of",
    "forgotten_in",
    "greeting",
    "holdings_content",
    "parse_holdings",
    "spread_of",
]

HOLDINGS: Final = "holdings"  #: the operation, and the feature's name
DIGEST: Final = "digest"
FORGET: Final = "forget"
FRAMES: Final = "frames"
DEFLATE: Final = "deflate-1"
FEATURES: Final = frozenset({HOLDINGS, DIGEST, FORGET, FRAMES, DEFLATE, DELTA, RENEW})
NEAR_FEATURES: Final = FEATURES - {DEFLATE, DELTA}  #: within one process bytes cost nothing
_MARK: Final = "edgesite"
_VERSION: Final = 1
_SPREAD_MOST_S: Final = 600.0


def greeting(features: Iterable[str] = FEATURES, *, spread_s: float = 0.0) -> dict[str, Any]:
    """Return the content of a greeting. ``spread_s``: over which time edges shall come back when all links were lost."""
    content: dict[str, Any] = {_MARK: _VERSION, "features": sorted(features)}
    if spread_s:
        content["spread_s"] = round(spread_s, 3)
    return content


def agree(theirs: frozenset[str], ours: frozenset[str]) -> frozenset[str]:
    """Return what both ends can do; the very set of ours if that is all of it, which spares each session one."""
    return ours if theirs >= ours else theirs & ours


def spread_of(message: Message) -> float:
    """Return ``spread_s`` of a greeting; 0 if it tells none."""
    value = message.content.get("spread_s") if isinstance(message.content, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= _SPREAD_MOST_S else 0.0


def features_of(message: Message) -> frozenset[str] | None:
    """Return what the sender can do, or None if this is no greeting: the sender is not one of ours."""
    content = message.content
    if not isinstance(content, dict) or not isinstance(content.get(_MARK), int):
        return None
    features = content.get("features")
    return frozenset(one for one in features if isinstance(one, str)) if isinstance(features, list) else frozenset()


def holdings_content(objects: Iterable[ObjectRef]) -> dict[str, Any]:
    return {"objects": [[one.uid, one.version, one.type, one.namespace, one.name] for one in objects]}


def digest_of(versions: Iterable[tuple[str, int]]) -> str:
    """Return a digest of (uid, version) pairs, whatever their order."""
    total = 0
    for uid, version in versions:
        hashed = hashlib.blake2b(f"{uid}:{version}".encode(), digest_size=16).digest()
        total += int.from_bytes(hashed, "big")
    return f"{total & (1 << 128) - 1:x}"


def forgotten_in(message: Message) -> tuple[str, ...]:
    """Return the uids that the cloud wants to be forgotten; none in a plain question."""
    uids = message.content.get(FORGET) if isinstance(message.content, dict) else None
    return tuple(one for one in uids if isinstance(one, str) and one) if isinstance(uids, list) else ()


def parse_holdings(message: Message) -> tuple[ObjectRef, ...] | str:
    """Return what an edge holds, or the digest of it. Raises InvalidMessage."""
    content = message.object()
    digest = content.get("digest")
    if isinstance(digest, str):
        return digest
    rows = content.get("objects")
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
