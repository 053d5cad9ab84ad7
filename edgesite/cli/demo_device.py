"""The thermostat of ``edgesite up --demo``: a device of protocol ``virtual`` on the first node, its picture, and what to try with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.cli.device.values import seen
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import DEVICE_MODELS, DEVICES

if TYPE_CHECKING:
    from edgesite.client.client import Client

__all__ = ["add_thermostat", "device_text", "hints"]

_API: Final = "devices.kubeedge.io/v1beta1"
_NAME: Final = "thermostat"
_MODEL: Final[dict[str, Any]] = {
    "apiVersion": _API,
    "kind": "DeviceModel",
    "metadata": {"name": _NAME, "namespace": "default"},
    "spec": {
        "protocol": "virtual",
        "properties": [
            {
                "name": "target",
                "description": "what the room shall be heated to",
                "type": "FLOAT",
                "accessMode": "ReadWrite",
                "minimum": "5",
                "maximum": "30",
                "unit": "Celsius",
            },
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "unit": "Celsius"},
            {"name": "heating", "type": "BOOLEAN", "accessMode": "ReadOnly"},
        ],
    },
}


def _device(node: str) -> dict[str, Any]:
    def prop(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "collectCycle": 1000, "reportCycle": 2000, "reportToCloud": True, **more}

    return {
        "apiVersion": _API,
        "kind": "Device",
        "metadata": {"name": _NAME, "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": _NAME},
            "nodeName": node,
            # A minute of the room's in a second: it is warm soon.
            "protocol": {
                "protocolName": "virtual",
                "configData": {"machine": "thermostat", "speed": 60, "temperature": 18, "outside": 8},
            },
            "properties": [prop("target", desired={"value": "21"}), prop("temperature"), prop("heating")],
        },
    }


async def add_thermostat(client: Client, node: str) -> None:
    """Make model and device where they are not there yet: what somebody turned stays. Raises ApiError."""
    for resource, obj in ((DEVICE_MODELS, _MODEL), (DEVICES, _device(node))):
        try:
            await client.create(resource, obj, "default")
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise


def device_text(obj: dict[str, Any]) -> str:
    now = seen(obj)
    values = [
        f"{name} {now.reported.get(name, '-')}{f' (wanted {wanted})' if (wanted := now.desired.get(name)) else ''}"
        for name in now.properties
    ]
    return f"{now.state or 'unknown':<18}{'  '.join(values)}"


def hints(kubectl: str) -> list[str]:
    """Commands to copy."""
    patch = '[{"op":"replace","path":"/spec/properties/0/desired/value","value":"23"}]'
    return [
        f"{kubectl} get devices",
        f"{kubectl} patch device {_NAME} --type=json -p '{patch}'",
        "mosquitto_sub -p 1884 -v -t '$hw/events/#'",
    ]
