"""Brings devices that a cluster stores as v1alpha2 into v1beta1, as an upgrade of KubeEdge's older definitions leaves them.

Each object is written back unchanged, whereupon the API server stores it in the new version; then the definition's status says that
there are no others any more. The API server has the objects converted by the webhooks, so that these must answer.

Units   Seconds.
Errors  ApiError of the API, but for conversions that fail: these are said, and nothing is lost by them.
State   None.
Source  Kubernetes: "Versions in CustomResourceDefinitions", upgrade of existing objects to a new stored version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import devices
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICE_MODELS, DEVICES, Resource

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["rewrite"]

_STORED: Final = "v1beta1"
_PAGE: Final = 200
_TRIES: Final = (
    12  #: instances look for their certificate now and then, and API servers take over a definition within seconds
)
_REST_S: Final = 3.0


async def rewrite(client: Client, clock: Clock, say: Callable[[str], None]) -> None:
    """Rewrite what is stored in older versions, if anything is. Raises ApiError."""
    for kind in (DEVICES, DEVICE_MODELS):
        name = f"{kind.plural}.{devices.GROUP}"
        definition = await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
        older = [one for one in (definition.get("status") or {}).get("storedVersions") or () if one != _STORED]
        if not older:
            continue
        try:
            count = await _when_answered(client, clock, kind)
        except ApiError as exc:
            if exc.code < 500:
                raise
            say(
                f"{name}: stored as {', '.join(older)} still. Until the webhooks answer, such objects can be read as "
                f"{', '.join(older)} alone: start the cloud role where they are expected, then run this again ({exc})"
            )
            continue
        status = {"status": {"storedVersions": [_STORED]}}
        await client.patch(CUSTOM_RESOURCE_DEFINITIONS, name, status, subresource="status")
        say(f"{name}: {count} objects rewritten, all are stored as {_STORED}")


async def _when_answered(client: Client, clock: Clock, kind: Resource) -> int:
    """Raises ApiError: 500 and above where the webhooks do not answer in time."""
    for attempt in range(_TRIES):
        try:
            return await _rewrite_all(client, kind)
        except ApiError as exc:
            if exc.code < 500 or attempt == _TRIES - 1:
                raise
        await clock.sleep(_REST_S)
    raise AssertionError("unreachable")


async def _rewrite_all(client: Client, kind: Resource) -> int:
    """Raises ApiError."""
    count, token = 0, ""
    while True:
        page: dict[str, Any] = await client.list(kind, limit=_PAGE, continue_token=token)
        for obj in page["items"]:
            obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
            try:
                await client.update(kind, obj)
            except ApiError as exc:
                if exc.code not in (404, 409):  # gone, or written by somebody else: in the new version
                    raise
            count += 1
        token = (page.get("metadata") or {}).get("continue") or ""
        if not token:
            return count
