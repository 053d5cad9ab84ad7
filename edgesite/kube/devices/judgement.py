"""Who refuses a device or a model, and with which words: the same in the embedded API and in the webhook for a cluster's.

    is_looked_at(obj, old)               whether a write changes what is checked; what was stored before a model changed may stay as it is
    model_name(device)                   the DeviceModel to check it against, "" if it names none
    judged(kind, name, obj, model)       the error to answer with, or None, and warnings

Errors  None raised: the ApiError (Invalid, with the path of each field in the version that was sent) is returned.
Source  KubeEdge's admission webhook since v1.16; forms of kube-apiserver's own refusals.
"""

from __future__ import annotations

from typing import Any

from edgesite.kube import errors
from edgesite.kube.causes import Causes
from edgesite.kube.devices import rules
from edgesite.kube.devices.conversion import GROUP, to_v1beta1
from edgesite.kube.errors import ApiError

__all__ = ["is_looked_at", "judged", "model_name"]

Object = dict[str, Any]


def is_looked_at(obj: Object, old: Object | None) -> bool:
    """Whether the spec is new, whatever the versions of the two."""
    return old is None or to_v1beta1(obj).get("spec") != to_v1beta1(old).get("spec")


def model_name(device: Object) -> str:
    spec = device.get("spec")
    ref = spec.get("deviceModelRef") if isinstance(spec, dict) else None
    name = ref.get("name") if isinstance(ref, dict) else None
    return name if isinstance(name, str) else ""


def judged(kind: str, name: str, obj: Object, model: Object | None) -> tuple[ApiError | None, list[str]]:
    """``model`` is the DeviceModel that a device refers to, None if there is none."""
    causes, warnings = Causes(), list[str]()
    if kind == "DeviceModel":
        rules.check_model(causes, obj)
        warnings = rules.model_warnings(obj)
    else:
        rules.check_device(causes, obj, model)
        warnings = rules.warnings(obj, model)
    return (errors.invalid(kind, name, causes.found, GROUP) if causes else None), warnings
