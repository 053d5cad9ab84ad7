"""The hash of a container's spec as kubelets of Go compute it, so that either side knows the other's containers.

Kubernetes 1.15 to 1.30 (KubeEdge v1.12 has 1.22) hash the whole container, as Go writes it in JSON: members in the order of the
struct, empty ones left out, unknown ones dropped. Since 1.31 only image and name count. The bytes are hashed in the form in which
the library spew prints them, with FNV-1a of 32 bits.

A spec with members that Kubernetes 1.22 does not know (``resizePolicy``, gRPC probes …) gets the hash that 1.22 would compute, since
it would not read them either.

Source  Kubernetes v1.20 to v1.22, staging/src/k8s.io/api/core/v1/types.go (order and tags of members), pkg/kubelet/container/helpers.go;
        v1.31, the same; spew's format of a slice of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from edgesite.kube.gojson import go_json
from edgesite.kube.quantity import InvalidQuantity, canonical

__all__ = ["go_container_json", "hash_1_22", "hash_1_31"]

#: Members in order: ``name`` is left out when empty, ``name!`` never is, ``name*`` only when absent (a pointer), ``name[]`` is a list;
#: a struct's name behind ``*``, ``[`` or ``.`` (by value: always there) says what is inside, ``:q`` is a quantity, ``{q}`` a map of them.
_STRUCTS: Final = {
    "Container": "name! image command[] args[] workingDir ports[ContainerPort] envFrom[EnvFrom] env[EnvVar]"
    " resources.Resources volumeMounts[VolumeMount] volumeDevices[VolumeDevice] livenessProbe*Probe readinessProbe*Probe"
    " startupProbe*Probe lifecycle*Lifecycle terminationMessagePath terminationMessagePolicy imagePullPolicy"
    " securityContext*SecurityContext stdin stdinOnce tty",
    "ContainerPort": "name hostPort containerPort!0 protocol hostIP",
    "EnvFrom": "prefix configMapRef*EnvSource secretRef*EnvSource",
    "EnvSource": "name optional*",
    "EnvVar": "name! value valueFrom*ValueFrom",
    "ValueFrom": "fieldRef*FieldRef resourceFieldRef*ResourceFieldRef configMapKeyRef*KeyRef secretKeyRef*KeyRef",
    "FieldRef": "apiVersion fieldPath!",
    "ResourceFieldRef": "containerName resource! divisor:q",
    "KeyRef": "name key! optional*",
    "Resources": "limits{q} requests{q}",
    "VolumeMount": "name! readOnly mountPath! subPath mountPropagation* subPathExpr",
    "VolumeDevice": "name! devicePath!",
    "Probe": "exec*Exec httpGet*HttpGet tcpSocket*TcpSocket initialDelaySeconds timeoutSeconds periodSeconds successThreshold"
    " failureThreshold terminationGracePeriodSeconds*",
    "Handler": "exec*Exec httpGet*HttpGet tcpSocket*TcpSocket",
    "Exec": "command[]",
    "HttpGet": "path port!0 host scheme httpHeaders[HttpHeader]",
    "HttpHeader": "name! value!",
    "TcpSocket": "port!0 host",
    "Lifecycle": "postStart*Handler preStop*Handler",
    "SecurityContext": "capabilities*Capabilities privileged* seLinuxOptions*SELinux windowsOptions*Windows runAsUser* runAsGroup*"
    " runAsNonRoot* readOnlyRootFilesystem* allowPrivilegeEscalation* procMount* seccompProfile*Seccomp",
    "Capabilities": "add[] drop[]",
    "SELinux": "user role type level",
    "Windows": "gmsaCredentialSpecName* gmsaCredentialSpec* runAsUserName* hostProcess*",
    "Seccomp": "type! localhostProfile*",
}
_MEMBER: Final = re.compile(r"(?P<name>\w+?)(?:(?P<form>!0|!|\*|\[|\.|:q|\{q\})(?P<struct>\w*)\]?)?")
_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    form: str
    struct: str


def hash_1_22(container: Mapping[str, Any]) -> str:
    """Return the text of the annotation ``io.kubernetes.container.hash`` as kubelets up to 1.30 write it."""
    return _hash(go_container_json(container))


def hash_1_31(container: Mapping[str, Any]) -> str:
    """Return the same as kubelets from 1.31 on write it."""
    return _hash(go_json({"image": container.get("image") or "", "name": container.get("name") or ""}))


def go_container_json(container: Mapping[str, Any]) -> str:
    """Return the container in the JSON of Kubernetes 1.22's own type."""
    return go_json(_struct("Container", container), sort=False)


def _hash(text: str) -> str:
    """FNV-1a over what spew prints for the bytes of ``text``: ``([]uint8)[123 34 …]``."""
    printed = f"([]uint8)[{' '.join(map(str, text.encode()))}]"
    value = _FNV_OFFSET
    for byte in printed.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return f"{value:x}"


@cache
def _members(struct: str) -> tuple[_Member, ...]:
    found = (_MEMBER.fullmatch(one) for one in _STRUCTS[struct].split())
    return tuple(_Member(one["name"], one["form"] or "", one["struct"] or "") for one in found if one is not None)


def _struct(struct: str, values: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for member in _members(struct):
        value = values.get(member.name)
        if (shown := _SHOW[member.form](member, value)) is not None:
            made[member.name] = shown
    return made


def _inner(member: _Member, value: Any) -> Any:
    return _struct(member.struct, value) if member.struct and isinstance(value, Mapping) else value


def _quantity(value: Any) -> str:
    try:
        return canonical(str(value))
    except InvalidQuantity:
        return str(value)


def _quantities(value: Any) -> dict[str, str] | None:
    return {name: _quantity(one) for name, one in sorted(value.items())} if value else None


_SHOW: Final[dict[str, Callable[[_Member, Any], Any]]] = {
    "": lambda member, value: value or None,
    "!": lambda member, value: value or "",
    "!0": lambda member, value: value or 0,
    "*": _inner,
    "[": lambda member, value: [_inner(member, one) for one in value] if value else None,
    ".": lambda member, value: _struct(member.struct, value or {}),
    ":q": lambda member, value: _quantity(value or "0"),
    "{q}": lambda member, value: _quantities(value),
}
