"""What a request to the kubelet API asks of authorisation: a verb on a subresource of the node.

State   None.
Source  Kubernetes documentation "Kubelet authentication/authorization" (verbs and subresources).
"""

from __future__ import annotations

from typing import Final

from edgesite.kube.rbac import Attributes

__all__ = ["attributes_of"]

_VERBS: Final = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES: Final = {
    "stats": "stats",
    "metrics": "metrics",
    "logs": "log",
    "spec": "spec",
    "checkpoint": "checkpoint",
}


def attributes_of(method: str, path: str, node: str) -> Attributes:
    """Return the attributes that kubelet would ask about."""
    first = path.strip("/").partition("/")[0]
    subresource = _SUBRESOURCES.get(first, "proxy")
    return Attributes(_VERBS.get(method, ""), version="v1", resource="nodes", subresource=subresource, name=node)
