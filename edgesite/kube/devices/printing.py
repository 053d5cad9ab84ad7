"""Devices and models as kubectl shows them: desired and reported values as one cell each.

    NAME         MODEL        NODE     STATE    DESIRED        REPORTED                AGE
    thermostat   thermostat   edge-1   online   target=21.5    actual=20.1,target=20   5m

Errors  None raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgesite.kube.devices.conversion import to_v1beta1
from edgesite.kube.tablecells import NONE, Printer, age, columns

__all__ = ["DEVICE", "MODEL"]

Object = dict[str, Any]
_MOST: Final = 80  #: characters of a cell of values


def _device_cells(obj: Object, now: float) -> list[Any]:
    beta = to_v1beta1(obj)
    spec, status = beta.get("spec") or {}, beta.get("status") or {}
    desired = ((one.get("name"), one.get("desired")) for one in spec.get("properties") or ())
    reported = ((one.get("propertyName"), one.get("reported")) for one in status.get("twins") or ())
    return [
        beta["metadata"].get("name", ""),
        (spec.get("deviceModelRef") or {}).get("name") or NONE,
        spec.get("nodeName") or NONE,
        status.get("state") or NONE,
        _values(desired),
        _values(reported),
        age(beta, now),
        (spec.get("protocol") or {}).get("protocolName") or NONE,
        status.get("lastOnlineTime") or NONE,
    ]


def _values(pairs: Iterable[tuple[Any, Any]]) -> str:
    said = [f"{name}={one['value']}" for name, one in pairs if isinstance(one, dict) and one.get("value")]
    text = ",".join(said)
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."


def _model_cells(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    names = [str(one.get("name")) for one in spec.get("properties") or ()]
    return [obj["metadata"].get("name", ""), spec.get("protocol") or NONE, ",".join(names) or NONE, age(obj, now)]


DEVICE: Final = Printer(
    columns("Name | Model | Node | State | Desired | Reported | Age | Protocol+ | Last Online+"), _device_cells
)
MODEL: Final = Printer(columns("Name | Protocol | Properties | Age"), _model_cells)
