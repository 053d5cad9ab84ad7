"""Answers to requests for which no module of the cloud runs, in the form that each asker understands, so that nobody waits in vain.

    MetaServer (KubeEdge's)     its Application comes back rejected: it serves reads from its own store at once, not after 10 s
    watchapp/sync (v1.13)       all watches that it tells of come back failed: none is served here
    an edge of ours             an error (503)
    any other edge of KubeEdge  nothing: v1.12 would store an error as if it were the object

Source  KubeEdge v1.12.7 pkg/metaserver (Application), v1.13 (watchapp/sync).
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube.errors import unavailable
from edgesite.wire import resource
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, error_content

__all__ = ["unserved"]

_METASERVER: Final = "metaserver"
_WATCHES: Final = "watchapp/sync"
_ANSWERED: Final = "ignore/Application/ignore"
_REJECTED: Final = "Rejected"


def unserved(maker: MessageMaker, node: str, request: Message, *, is_own: bool) -> Message | None:
    """Return the answer to a request that no module takes, with the node in front of its resource; None if there is none to give."""
    if request.parent_msg_id:
        return None
    status = unavailable("the cloud has no module for this request").status()
    if is_own:
        return maker.error(request, error_content(status))
    if request.source != _METASERVER:
        return None
    try:
        content = request.object()
    except InvalidMessage:
        return None
    path = resource.trim_node(request.resource)
    if path == _WATCHES:
        answer: Any = {name: _rejected(one, status) for name, one in content.items() if isinstance(one, dict)}
    else:
        path, answer = _ANSWERED, _rejected(content, status)
    return maker.make(
        "dynamiccontroller",
        "resource",
        "applicationResponse",
        resource.add_node(node, path),
        answer,
        parent=request.msg_id,
    )


def _rejected(application: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    return {**application, "Status": _REJECTED, "Reason": status["message"], "Error": {"ErrStatus": status}}
