"""The cloud role's own namespace, ``kubeedge``, and the end of others.

Errors  ApiError of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NAMESPACES

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["NAMESPACE", "ensure_namespace", "is_ending"]

NAMESPACE: Final = "kubeedge"


async def ensure_namespace(client: Client) -> None:
    """Create the namespace if it is missing. Raises ApiError.

    On a cluster the role may not be allowed to create any: an administrator has made this one, or what is written to it next
    fails with a message that says so.
    """
    try:
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    except ApiError as exc:
        if exc.reason not in ("AlreadyExists", "Forbidden"):
            raise


def is_ending(error: ApiError) -> bool:
    """Whether something was refused because its namespace is being deleted: there is nothing to try again, and no right is missing."""
    return any(one.get("reason") == "NamespaceTerminating" for one in (error.details or {}).get("causes") or ())
