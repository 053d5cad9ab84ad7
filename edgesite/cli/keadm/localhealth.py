"""What edgecore on this host says of its node, on its health port: whether the cloud has taken it in, and whether it is Ready there.

Errors  None: an edgecore that does not answer has no node yet.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Final

__all__ = ["NodeState", "node_state"]

_ANSWER_S: Final = 3.0
_REGISTERED: Final = "edgesite_node_registered"
_READY: Final = "edgesite_node_ready"


@dataclass(frozen=True, slots=True)
class NodeState:
    is_registered: bool = False
    is_ready: bool = False
    problem: str = ""


def node_state(port: int) -> NodeState:
    """Ask once."""
    metrics = _get(port, "/metrics")
    if not metrics:
        return NodeState(problem="edgecore does not answer yet")
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if " " in line and not line.startswith("#"))
    failing = [line[3:] for line in _get(port, "/readyz?verbose").splitlines() if line.startswith("[-]")]
    return NodeState(
        is_registered=values.get(_REGISTERED) == "1.0", is_ready=values.get(_READY) == "1.0", problem="; ".join(failing)
    )


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
