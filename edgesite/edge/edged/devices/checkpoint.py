"""The allocations on disk: a restart must neither lose a device nor give it twice. Blocking.

    <root>/device-plugins/edgesite_allocations.json

Where there is none, that of a kubelet which ran here before is read (``kubelet_internal_checkpoint`` in the same folder).

Errors  OSError. What cannot be read counts as nothing: containers that run keep what they have.
Source  Kubernetes device manager checkpoint: names of its members.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgesite.edge.durable import replace_file
from edgesite.edge.edged.devices.allocation import Allocation
from edgesite.edge.edged.devices.tables import DEVICES
from edgesite.kube import json
from edgesite.kube.protowire import WireFormatError, decode, encode

__all__ = ["FILE", "KUBELETS", "load", "save"]

FILE: Final = "edgesite_allocations.json"
KUBELETS: Final = "kubelet_internal_checkpoint"
_RESPONSE: Final = DEVICES["ContainerAllocateResponse"]


def save(folder: Path, allocations: Iterable[Allocation]) -> None:
    """Replace what is stored, durably. Raises OSError."""
    entries = [
        {
            "PodUID": one.uid,
            "ContainerName": one.container,
            "ResourceName": one.resource,
            "DeviceIDs": list(one.ids),
            "AllocResp": base64.b64encode(encode(_RESPONSE, one.given)).decode(),
        }
        for one in allocations
    ]
    replace_file(folder / FILE, json.dumps({"version": 1, "PodDeviceEntries": entries}))


def load(folder: Path) -> list[Allocation]:
    """Return what was stored."""
    data = _read(folder / FILE) or (_read(folder / KUBELETS).get("Data") or {})
    found = []
    for entry in data.get("PodDeviceEntries") or ():
        try:
            given = decode(_RESPONSE, base64.b64decode(entry.get("AllocResp") or ""))
            ids = tuple(str(one) for one in _ids(entry.get("DeviceIDs")))
            found.append(Allocation(entry["PodUID"], entry["ContainerName"], entry["ResourceName"], ids, given))
        except (KeyError, TypeError, AttributeError, binascii.Error, WireFormatError):
            continue
    return found


def _ids(value: Any) -> list[Any]:
    """A list, or since Kubernetes 1.20 lists by NUMA node."""
    if isinstance(value, Mapping):
        return [one for ids in value.values() for one in ids]
    return list(value or ())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
