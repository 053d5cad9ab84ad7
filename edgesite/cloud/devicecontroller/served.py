"""Which kinds of devices.kubeedge.io the API serves, now and later.

    kinds(…)                 Device and DeviceModel in v1beta1, else in v1alpha2, as soon as there are any
    until_newer(…)           returns when v1beta1 has come where there was v1alpha2 alone
    is_served(client, kind)  None: the API does not tell

Only "not found" means that a kind is not served: while webhooks do not answer, v1beta1 may be there and out of reach for a moment.

Units   Seconds.
Errors  None.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, DEVICES, Resource

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["DEVICE_STATUSES", "LOOK_S", "is_served", "kinds", "until_newer"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
LOOK_S: Final = 30.0  #: for kinds that the API does not serve
_FIRST_S: Final = 0.5
DEVICE_STATUSES: Final = Resource("devices.kubeedge.io", "v1beta1", "DeviceStatus", "devicestatuses")


async def is_served(client: Client, kind: Resource, log: Log, *, loud: bool = False) -> bool | None:
    """``loud``: a missing right is logged as a warning."""
    try:
        await client.list(kind, limit=1)
    except ApiError as exc:
        if exc.code == 404:
            return False
        level = logging.WARNING if loud and exc.code == 403 else logging.DEBUG
        log.log(level, "the API does not tell of %s: %s", kind.plural, exc)
        return None
    return True


async def kinds(client: Client, clock: Clock, draw: random.Random, log: Log) -> tuple[Resource, Resource]:
    """Wait until the API serves devices."""
    said, loud, wait_s = False, True, _FIRST_S
    while True:
        for version in ("v1beta1", "v1alpha2"):
            found = await is_served(client, _kind("devices", version), log, loud=loud)
            if found:
                return _kind("devices", version), _kind("devicemodels", version)
            if found is None:
                break
        else:
            wait_s = LOOK_S
            if not said:
                said = True
                log.warning("the API does not serve devices.kubeedge.io: there are no devices")
        await clock.sleep(wait_s * (0.75 + draw.random() / 2))
        loud = False
        wait_s = min(wait_s * 2, LOOK_S)


async def until_newer(client: Client, clock: Clock, draw: random.Random, log: Log) -> None:
    while not await is_served(client, DEVICES, log):
        await clock.sleep(LOOK_S * (0.75 + draw.random() / 2))


def _kind(plural: str, version: str) -> Resource:
    return next(
        one for one in BUILTIN if (one.group, one.plural, one.version) == ("devices.kubeedge.io", plural, version)
    )
