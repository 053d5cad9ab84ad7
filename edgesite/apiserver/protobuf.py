"""Request bodies in Kubernetes' protobuf form, which Go clients send for built-in kinds. Answers are JSON: clients accept both.

On the wire a Go zero value and an absent one look alike wherever Go has no pointer, so zeros are taken as absent but for the
fields that Go holds by pointer, in which a zero is a choice (replicas: 0, optional: false).

Errors  ApiError BadRequest for what cannot be read, UnsupportedMediaType for kinds without a table.
State   The tables that were needed so far. Only imported when such a body is met.
Source  Kubernetes API concepts (alternate representations): the magic prefix and runtime.Unknown; field numbers in `protobuf_tables`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from edgesite.apiserver.protobuf_tables import TEXT
from edgesite.kube import errors, json, protowire, times

__all__ = ["MAGIC", "parse"]

MAGIC: Final = b"k8s\x00"
_INLINE: Final = "inline_"
_ABSENT: Final = object()
#: Numbers and booleans that Go holds by pointer, or that kinds require: their zeros count.
_ZEROS_COUNT: Final = frozenset(
    [
        "activeDeadlineSeconds",
        "allocateLoadBalancerNodePorts",
        "allowPrivilegeEscalation",
        "allowVolumeExpansion",
        "attachRequired",
        "automountServiceAccountToken",
        "averageUtilization",
        "backoffLimit",
        "backoffLimitPerIndex",
        "blockOwnerDeletion",
        "completions",
        "controller",
        "defaultMode",
        "deletionGracePeriodSeconds",
        "enableServiceLinks",
        "expirationSeconds",
        "failedJobsHistoryLimit",
        "fsGroup",
        "gracePeriodSeconds",
        "hostUsers",
        "immutable",
        "leaseDurationSeconds",
        "leaseTransitions",
        "manualSelector",
        "maxFailedIndexes",
        "minReplicas",
        "mode",
        "optional",
        "orphanDependents",
        "parallelism",
        "podInfoOnMount",
        "priority",
        "privileged",
        "progressDeadlineSeconds",
        "readOnlyRootFilesystem",
        "ready",
        "replicas",
        "requiresRepublish",
        "revisionHistoryLimit",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seLinuxMount",
        "serving",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "stabilizationWindowSeconds",
        "startingDeadlineSeconds",
        "storageCapacity",
        "successfulJobsHistoryLimit",
        "suspend",
        "terminating",
        "terminationGracePeriodSeconds",
        "timeoutSeconds",
        "tolerationSeconds",
        "ttlSecondsAfterFinished",
        "value",
        "restartCount",
        "started",
    ]
)
_TEXTS_COUNT: Final = frozenset({"storageClassName"})


@cache
def _messages() -> protowire.Messages:
    return protowire.Messages(TEXT)


def parse(body: bytes) -> Any:
    """Return the object that a body holds, as its JSON would. Raises ApiError."""
    if not body.startswith(MAGIC):
        raise errors.bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    messages = _messages()
    try:
        unknown = protowire.decode(messages["runtime.Unknown"], body[len(MAGIC) :])
        named = unknown.get("typeMeta") or {}
        version, kind = named.get("apiVersion") or "", named.get("kind") or ""
        name = _message_name(version, kind)
        if name not in set(messages):
            raise errors.unsupported_media_type("application/json, application/yaml")
        table = messages[name]
        obj = _struct(table, protowire.decode(table, unknown.get("raw") or b""))
    except (protowire.WireFormatError, json.InvalidJson) as exc:
        raise errors.bad_request(f"the protobuf body cannot be read: {exc}") from None
    return {"kind": kind, "apiVersion": version, **obj}


def _message_name(version: str, kind: str) -> str:
    if kind == "DeleteOptions":
        return "meta.v1.DeleteOptions"
    group, _, version = version.rpartition("/")
    return f"{group.partition('.')[0] or 'core'}.{version}.{kind}"


def _struct(table: protowire.MessageTable, message: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in table.fields:
        if field.name not in message:
            continue
        value = _value(field.name, field.type, field.table, message[field.name])
        if value is _ABSENT:
            continue
        if field.name.startswith(_INLINE):
            out.update(value)
        else:
            out[field.name] = value
    return out


def _value(name: str, kind: str, table: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_element(kind, table, one) for one in value]
    if kind.startswith("map<"):
        (_, entry) = table.fields
        return {key: _element(entry.type, entry.table, one) for key, one in value.items()}
    if isinstance(value, dict):
        return _message(kind, table, value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not value:
        kept = _TEXTS_COUNT if isinstance(value, str) else _ZEROS_COUNT
        return value if name in kept else _ABSENT
    return value


def _element(kind: str, table: Any, value: Any) -> Any:
    """An element of a list or a map, of which zeros count."""
    if isinstance(value, dict):
        made = _message(kind, table, value)
        return None if made is _ABSENT else made
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _message(kind: str, table: Any, value: dict[str, Any]) -> Any:
    special = _SPECIAL.get(kind)
    return special(value) if special is not None else _struct(table, value)


def _time(value: dict[str, Any]) -> Any:
    return times.format_time(value.get("seconds", 0)) if value else _ABSENT


def _micro_time(value: dict[str, Any]) -> Any:
    return times.format_micro(value.get("seconds", 0) + value.get("nanos", 0) / 1e9) if value else _ABSENT


def _int_or_string(value: dict[str, Any]) -> Any:
    return value.get("strVal", "") if value.get("type") else value.get("intVal", 0)


def _raw_json(value: dict[str, Any]) -> Any:
    raw = value.get("raw") or value.get("Raw")
    return json.loads(raw) if raw else _ABSENT


_SPECIAL: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.Duration": lambda value: times.format_duration(value.get("duration", 0) / 1e9),
    "meta.v1.FieldsV1": _raw_json,
    "runtime.RawExtension": _raw_json,
    "resource.Quantity": lambda value: value.get("string", ""),
    "util.intstr.IntOrString": _int_or_string,
    "authentication.v1.ExtraValue": lambda value: value.get("items", []),
    "authorization.v1.ExtraValue": lambda value: value.get("items", []),
    "certificates.v1.ExtraValue": lambda value: value.get("items", []),
}
