"""Which kinds the API server serves that can be listed, watched and deleted: asked of the server, so CRDs and plugins count.

Errors  ApiError.
Source  apidiscovery.k8s.io/v2, APIGroupDiscoveryList.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, Resource

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["deletable"]

ACCEPT: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
NEEDED: Final = frozenset({"delete", "get", "list", "patch", "watch"})


async def deletable(client: Client) -> list[Resource]:
    """Return a row for each kind, in its preferred version, that can be deleted; views of other kinds are left out."""
    views = {(one.group, one.version, one.plural) for one in BUILTIN if one.stored_as}
    known = {(one.group, one.version, one.plural): one for one in BUILTIN}
    rows: list[Resource] = []
    seen: set[tuple[str, str]] = set()
    for path in ("/api", "/apis"):
        status, _, body = await client.request("GET", path, headers={"accept": ACCEPT})
        answer = json.loads(body)
        if status >= 400:
            raise ApiError.from_status(answer, status)
        for group in answer.get("items") or ():
            name = (group.get("metadata") or {}).get("name") or ""
            for version in group.get("versions") or ():
                for one in version.get("resources") or ():
                    row = _row(name, version.get("version") or "", one)
                    at = (row.group, row.version, row.plural)
                    if at in views or at[::2] in seen or not set(one.get("verbs") or ()) >= NEEDED:
                        continue
                    seen.add((row.group, row.plural))
                    rows.append(known.get(at, row))
    return rows


def _row(group: str, version: str, one: Mapping[str, Any]) -> Resource:
    return Resource(
        group,
        version,
        (one.get("responseKind") or {}).get("kind") or "",
        one.get("resource") or "",
        namespaced=one.get("scope") == "Namespaced",
        verbs=tuple(one.get("verbs") or ()),
    )
