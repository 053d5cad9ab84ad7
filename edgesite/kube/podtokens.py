"""For whom a pod's tokens are meant: a node may ask for no others.

State   None.
Source  core/v1 ServiceAccountTokenProjection; Kubernetes: NodeRestriction (audiences of tokens that nodes ask for).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["audiences_of", "strange_audience", "uses_drivers"]


def audiences_of(pod: Mapping[str, Any]) -> set[str]:
    """The audiences that the pod's volumes name; "" is that of the API."""
    found = set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if (token := source.get("serviceAccountToken")) is not None:
                found.add(str(token.get("audience") or ""))
    return found


def uses_drivers(pod: Mapping[str, Any]) -> bool:
    """Whether drivers of volumes may want tokens of the pod, for audiences of their own."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return any(kind in volume for volume in volumes for kind in ("csi", "persistentVolumeClaim", "ephemeral"))


def strange_audience(pod: Mapping[str, Any], asked: Iterable[str] | None) -> str | None:
    """The first of the audiences asked for (none: the API's) that the pod has no use for; None if it has for all."""
    if uses_drivers(pod):
        return None
    known = audiences_of(pod)
    return next((one for one in (list(asked or ()) or [""]) if one not in known), None)
