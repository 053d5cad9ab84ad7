"""What a CSIDriver object says of a driver. Pure.

Source  storage/v1 CSIDriver; the defaults are the API's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DriverRules"]


@dataclass(frozen=True, slots=True)
class DriverRules:
    """What a CSIDriver object says; the defaults are those of a driver without one."""

    attach: bool = True
    pod_info: bool = False
    group_policy: str = "ReadWriteOnceWithFSType"
    lifecycles: tuple[str, ...] = ("Persistent",)
    token_requests: tuple[Mapping[str, Any], ...] = ()
    republish: bool = False

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> DriverRules:
        spec = obj.get("spec") or {}
        return cls(
            attach=spec.get("attachRequired") is not False,
            pod_info=bool(spec.get("podInfoOnMount")),
            group_policy=spec.get("fsGroupPolicy") or "ReadWriteOnceWithFSType",
            lifecycles=tuple(spec.get("volumeLifecycleModes") or ("Persistent",)),
            token_requests=tuple(spec.get("tokenRequests") or ()),
            republish=bool(spec.get("requiresRepublish")),
        )
