"""A container's environment, and ``$(NAME)`` in its command and arguments.

Nothing here does I/O: ConfigMaps and Secrets that a container names are found by `references` and fetched by the caller.

Errors  ConfigError: what the pod refers to is missing; kubelet calls it CreateContainerConfigError.
Source  Kubernetes: "Define Environment Variables", "Dependent Environment Variables", core/v1 EnvVarSource and EnvFromSource.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.edge.edged.pod import Pod, amount_nano
from edgesite.kube.quantity import InvalidQuantity, parse

__all__ = ["ConfigError", "Facts", "Reference", "environment", "expand", "field_value", "references", "resource_value"]

_REFERENCE: Final = re.compile(r"\$\$|\$\(([^)]*)\)")
_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


class ConfigError(Exception):
    """The container cannot be made from what there is; the text is for the pod's status."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap or Secret that a pod names."""

    kind: str  #: "configmap" or "secret"
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the downward API tells of the node and of the pod's addresses."""

    node_name: str
    host_ips: Sequence[str] = ()
    pod_ips: Sequence[str] = ()
    allocatable_nano: Mapping[str, int] = field(default_factory=dict)


def references(container: Mapping[str, Any]) -> Iterator[Reference]:
    """Give every ConfigMap and Secret that the container's environment names."""
    for source in container.get("envFrom") or ():
        for kind, member in (("configmap", "configMapRef"), ("secret", "secretRef")):
            if ref := source.get(member):
                yield Reference(kind, ref.get("name", ""), bool(ref.get("optional")))
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        for kind, member in (("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")):
            if ref := value_from.get(member):
                yield Reference(kind, ref.get("name", ""), bool(ref.get("optional")))


def environment(
    pod: Pod,
    container: Mapping[str, Any],
    objects: Mapping[tuple[str, str], Mapping[str, Any] | None],
    facts: Facts,
    services: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables in order. ``objects`` holds what `references` named, None where missing; ``services`` what is told of
    services (`serviceenv`), where the container does not say otherwise. Raises ConfigError."""
    told = services or {}
    found: dict[str, str] = {}
    known = ChainMap(found, dict(told))
    for source in container.get("envFrom") or ():
        found.update(_from_source(pod, source, objects))
    for variable in container.get("env") or ():
        name = variable.get("name", "")
        value_from = variable.get("valueFrom")
        if value_from:
            value = _from_value(pod, container, value_from, objects, facts)
            if value is not None:
                found[name] = value
        else:
            found[name] = expand(variable.get("value") or "", known)
    return found | {name: value for name, value in told.items() if name not in found}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable's value; unknown names stay as they are, ``$$`` gives ``$``."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def field_value(pod: Pod, path: str, facts: Facts) -> str:
    """Return what a ``fieldRef`` points at. Raises ConfigError."""
    if match := _SUBSCRIPT.fullmatch(path):
        return str((pod.metadata.get(match[1]) or {}).get(match[2], ""))
    values: dict[str, str] = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": pod.spec.get("serviceAccountName") or "",
        "status.hostIP": next(iter(facts.host_ips), ""),
        "status.hostIPs": ",".join(facts.host_ips),
        "status.podIP": next(iter(facts.pod_ips), ""),
        "status.podIPs": ",".join(facts.pod_ips),
    }
    if path in ("metadata.labels", "metadata.annotations"):
        return _lines(pod.metadata.get(path.removeprefix("metadata.")) or {})
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def resource_value(pod: Pod, container: Mapping[str, Any], selector: Mapping[str, Any], facts: Facts) -> str:
    """Return what a ``resourceFieldRef`` points at, in its divisor, rounded up. Raises ConfigError."""
    wanted = selector.get("containerName") or container.get("name")
    holder = next((one for one in pod.containers + pod.init_containers if one.get("name") == wanted), None)
    if holder is None:
        raise ConfigError(f"container {wanted} not found")
    kind, _, resource = str(selector.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise ConfigError(f"unsupported container resource : {selector.get('resource')}")
    amount = amount_nano(holder, kind, resource)
    if not amount and kind == "limits":
        amount = facts.allocatable_nano.get(resource, 0)  # a container without a limit may use the node's
    try:
        divisor = parse(str(selector.get("divisor") or "1")).nano or 10**9
    except InvalidQuantity as exc:
        raise ConfigError(str(exc)) from exc
    return str(-(-amount // divisor))


def _from_source(
    pod: Pod, source: Mapping[str, Any], objects: Mapping[tuple[str, str], Mapping[str, Any] | None]
) -> Iterable[tuple[str, str]]:
    prefix = source.get("prefix") or ""
    for kind, member in (("configmap", "configMapRef"), ("secret", "secretRef")):
        if ref := source.get(member):
            obj = _object(pod, kind, ref, objects)
            for key, value in ((obj or {}).get("data") or {}).items():
                if "=" not in prefix + key:  # such a name no environment can hold
                    yield prefix + key, _text(kind, value)


def _from_value(
    pod: Pod,
    container: Mapping[str, Any],
    value_from: Mapping[str, Any],
    objects: Mapping[tuple[str, str], Mapping[str, Any] | None],
    facts: Facts,
) -> str | None:
    if ref := value_from.get("fieldRef"):
        return field_value(pod, ref.get("fieldPath", ""), facts)
    if ref := value_from.get("resourceFieldRef"):
        return resource_value(pod, container, ref, facts)
    for kind, member, word in (("configmap", "configMapKeyRef", "ConfigMap"), ("secret", "secretKeyRef", "Secret")):
        if ref := value_from.get(member):
            key = ref.get("key", "")
            obj = _object(pod, kind, ref, objects)
            if obj is None:
                return None
            if key not in (obj.get("data") or {}):
                if ref.get("optional"):
                    return None
                raise ConfigError(f"couldn't find key {key} in {word} {pod.namespace}/{ref.get('name', '')}")
            return _text(kind, obj["data"][key])
    return None


def _object(
    pod: Pod, kind: str, ref: Mapping[str, Any], objects: Mapping[tuple[str, str], Mapping[str, Any] | None]
) -> Mapping[str, Any] | None:
    name = ref.get("name", "")
    if (obj := objects.get((kind, name))) is None and not ref.get("optional"):
        raise ConfigError(f'{kind} "{name}" not found')
    return obj


def _text(kind: str, value: str) -> str:
    if kind == "configmap":
        return value
    try:
        return base64.b64decode(value, validate=True).decode(errors="replace")
    except binascii.Error as exc:
        raise ConfigError("a value of the secret is not base64") from exc


def _lines(values: Mapping[str, str]) -> str:
    """Labels or annotations as the downward API writes them: sorted, quoted as Go quotes text."""
    escapes = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
    return "\n".join(f'{name}="{value.translate(escapes)}"' for name, value in sorted(values.items()))
