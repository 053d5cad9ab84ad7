"""Validation of containers: names, images, ports, environment, mounts, probes, resources.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of core/v1 Container.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edgesite.kube import names, quantity
from edgesite.kube.causes import MAX_INT32, NOT_NEGATIVE, Causes

__all__ = ["FIELD_PATHS", "check_container", "check_key", "check_resource_amounts", "check_resources"]

Object = dict[str, Any]
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
FIELD_PATHS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)  #: what environment variables may take from the pod, beside single labels and annotations
_SUBSCRIPT: Final = re.compile(r"metadata\.(?:labels|annotations)\['[^']+'\]")
_STANDARD_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage", "storage")
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")


def check_container(causes: Causes, path: str, container: Object, volumes: set[str], kind: str = "container") -> None:
    """One container; ``kind`` is "container", "init" or "ephemeral"."""
    name = container.get("name", "")
    if not name:
        causes.required(f"{path}.name")
    else:
        causes.each(f"{path}.name", name, names.dns1123_label_problems(name))
    image = container.get("image", "")
    if not image:
        causes.required(f"{path}.image")
    elif image != image.strip():
        causes.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    causes.choice(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES)
    message = container.get("terminationMessagePolicy")
    if message is not None and message not in ("FallbackToLogsOnError", "File"):
        causes.not_supported(f"{path}.terminationMessagePolicy", message, ("FallbackToLogsOnError", "File"))
    _check_ports(causes, f"{path}.ports", container.get("ports", ()))
    _check_environment(causes, path, container)
    _check_mounts(causes, path, container, volumes)
    _check_probes(causes, path, container, kind)
    check_resources(causes, f"{path}.resources", container.get("resources", {}))
    if "securityContext" in container:
        _check_security(causes, f"{path}.securityContext", container["securityContext"])
    restart = container.get("restartPolicy")
    if kind == "init" and restart is not None and restart not in ("Always", "Never", "OnFailure"):
        causes.not_supported(f"{path}.restartPolicy", restart, ("Always", "Never", "OnFailure"))


def _check_ports(causes: Causes, path: str, ports: list[Object]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name", "")
        if name:
            problems = names.port_name_problems(name)
            causes.each(f"{at}.name", name, problems)
            if not problems and name in seen:
                causes.duplicate(f"{at}.name", name)
            seen.add(name)
        if not port.get("containerPort"):
            causes.required(f"{at}.containerPort")
        else:
            causes.port(f"{at}.containerPort", port["containerPort"])
        if port.get("hostPort"):
            causes.port(f"{at}.hostPort", port["hostPort"])
        causes.choice(f"{at}.protocol", port.get("protocol"), PROTOCOLS)


def _check_environment(causes: Causes, path: str, container: Object) -> None:
    for index, env in enumerate(container.get("env", ())):
        at = f"{path}.env[{index}]"
        name = env.get("name", "")
        if not name:
            causes.required(f"{at}.name")
        else:
            causes.each(f"{at}.name", name, names.env_name_problems(name))
        if "valueFrom" in env:
            _check_value_source(causes, f"{at}.valueFrom", env)
    for index, source in enumerate(container.get("envFrom", ())):
        at = f"{path}.envFrom[{index}]"
        if source.get("prefix"):
            causes.each(f"{at}.prefix", source["prefix"], names.env_name_problems(source["prefix"]))
        given = [name for name in ("configMapRef", "secretRef") if name in source]
        if not given:
            causes.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            causes.invalid(at, "", "may not have more than one field specified at a time")
        for name in given:
            if not source[name].get("name"):
                causes.required(f"{at}.{name}.name")


def _check_value_source(causes: Causes, path: str, env: Object) -> None:
    source = env["valueFrom"]
    given = [name for name in source if name in _VALUE_SOURCES]
    if not given:
        choices = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        causes.invalid(path, "", f"must specify one of: {choices}")
    elif env.get("value"):
        causes.invalid(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        causes.invalid(path, "", "may not have more than one field specified at a time")
    for name in given:
        at, one = f"{path}.{name}", source[name]
        if name == "fieldRef":
            _check_field_path(causes, at, one)
        elif name == "resourceFieldRef":
            if not one.get("resource"):
                causes.required(f"{at}.resource")
        elif name in ("configMapKeyRef", "secretKeyRef"):
            if not one.get("name"):
                causes.required(f"{at}.name")
            check_key(causes, f"{at}.key", one.get("key", ""))


_VALUE_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def _check_field_path(causes: Causes, path: str, reference: Object) -> None:
    field = reference.get("fieldPath", "")
    if not reference.get("apiVersion"):
        causes.required(f"{path}.apiVersion")
    elif not field:
        causes.required(f"{path}.fieldPath")
    elif field not in FIELD_PATHS and not _SUBSCRIPT.fullmatch(field):
        if field.startswith(("metadata.", "spec.", "status.")):
            causes.not_supported(f"{path}.fieldPath", field, sorted(FIELD_PATHS))
        else:
            causes.invalid(
                f"{path}.fieldPath",
                field,
                f"error converting fieldPath: field label not supported: {field}",
            )


def check_key(causes: Causes, path: str, key: str) -> None:
    """A reference to a key of a ConfigMap or Secret."""
    if not key:
        causes.required(path)
    else:
        causes.each(path, key, names.config_map_key_problems(key))


def _check_mounts(causes: Causes, path: str, container: Object, volumes: set[str]) -> None:
    places: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts", ())):
        at = f"{path}.volumeMounts[{index}]"
        name = mount.get("name", "")
        if not name:
            causes.required(f"{at}.name")
        elif name not in volumes:
            causes.not_found(f"{at}.name", name)
        place = mount.get("mountPath", "")
        if not place:
            causes.required(f"{at}.mountPath")
        elif place in places:
            causes.invalid(f"{at}.mountPath", place, "must be unique")
        places.add(place)
        for field in ("subPath", "subPathExpr"):
            _check_sub_path(causes, f"{at}.{field}", mount.get(field, ""))
        if mount.get("subPath") and mount.get("subPathExpr"):
            causes.invalid(f"{at}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
        propagation = mount.get("mountPropagation")
        choices = ("Bidirectional", "HostToContainer", "None")
        if propagation is not None and propagation not in choices:
            causes.not_supported(f"{at}.mountPropagation", propagation, choices)
    for index, device in enumerate(container.get("volumeDevices", ())):
        at = f"{path}.volumeDevices[{index}]"
        if not device.get("name"):
            causes.required(f"{at}.name")
        elif device["name"] not in volumes:
            causes.not_found(f"{at}.name", device["name"])
        if not device.get("devicePath"):
            causes.required(f"{at}.devicePath")
        elif device["devicePath"] in places:
            causes.invalid(f"{at}.devicePath", device["devicePath"], "must not already exist in volumeMounts")


def _check_sub_path(causes: Causes, path: str, value: str) -> None:
    if value.startswith("/"):
        causes.invalid(path, value, "must be a relative path")
    if ".." in value.split("/"):
        causes.invalid(path, value, "must not contain '..'")


def _check_probes(causes: Causes, path: str, container: Object, kind: str) -> None:
    sidecar = kind == "container" or container.get("restartPolicy") == "Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if name not in container:
            continue
        if kind == "init" and not sidecar:
            causes.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
        elif kind == "ephemeral":
            causes.forbidden(f"{path}.{name}", "cannot be set for an Ephemeral Container")
        elif name == "lifecycle":
            for hook in ("postStart", "preStop"):
                if hook in container[name]:
                    _check_handler(causes, f"{path}.lifecycle.{hook}", container[name][hook], (*_HANDLERS[:3], "sleep"))
        else:
            _check_probe(causes, f"{path}.{name}", container[name], name != "readinessProbe")


def _check_probe(causes: Causes, path: str, probe: Object, once: bool) -> None:
    _check_handler(causes, path, probe, _HANDLERS)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes.not_negative(f"{path}.{name}", probe.get(name))
    if once and probe.get("successThreshold", 1) != 1:
        causes.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and not once:
        causes.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
    elif grace is not None and grace <= 0:
        causes.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0")


def _check_handler(causes: Causes, path: str, handler: Object, choices: tuple[str, ...]) -> None:
    given = [name for name in choices if name in handler]
    if not given:
        causes.required(path, "must specify a handler type")
    for name in given[1:]:
        causes.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    for name in given[:1]:
        at, one = f"{path}.{name}", handler[name]
        if name == "exec" and not one.get("command"):
            causes.required(f"{at}.command")
        elif name in ("httpGet", "tcpSocket"):
            _check_port_or_name(causes, f"{at}.port", one.get("port", 0))
            if name == "httpGet":
                if not one.get("path"):
                    causes.required(f"{at}.path")
                causes.choice(f"{at}.scheme", one.get("scheme"), ("HTTP", "HTTPS"))
        elif name == "grpc":
            causes.port(f"{at}.port", one.get("port"))


def _check_port_or_name(causes: Causes, path: str, port: int | str) -> None:
    if isinstance(port, int):
        causes.port(path, port)
    else:
        causes.each(path, port, names.port_name_problems(port))


def check_resources(causes: Causes, path: str, resources: Object) -> None:
    """Limits and requests; requests may not be more than limits."""
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    check_resource_amounts(causes, f"{path}.limits", limits)
    check_resource_amounts(causes, f"{path}.requests", requests)
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            limit = limits[name]
            causes.invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limit}")
        elif name in limits and amount != limits[name] and not _overcommits(name):
            causes.invalid(f"{path}.requests", amount, f"must be equal to {name} limit of {limits[name]}")
        elif name not in limits and not _overcommits(name):
            causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _overcommits(name: str) -> bool:
    return "/" not in name and not name.startswith("hugepages-")


def check_resource_amounts(causes: Causes, path: str, amounts: Object) -> None:
    for name, amount in amounts.items():
        at = f"{path}[{name}]"
        problems = names.qualified_name_problems(name)
        causes.each(at, name, problems)
        if not problems and "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
            causes.invalid(at, name, "must be a standard resource type or fully qualified")
            causes.invalid(at, name, "must be a standard resource for containers")
        if quantity.parse(amount) < quantity.ZERO:
            causes.invalid(at, amount, NOT_NEGATIVE)
        elif "/" in name and quantity.parse(amount).milli_value() % 1000:
            causes.invalid(at, amount, "must be an integer")


def _check_security(causes: Causes, path: str, security: Object) -> None:
    for name in ("runAsUser", "runAsGroup"):
        if name in security and not 0 <= security[name] <= MAX_INT32:
            causes.invalid(f"{path}.{name}", security[name], "must be between 0 and 2147483647, inclusive")
    if security.get("allowPrivilegeEscalation") is False and security.get("privileged"):
        detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        causes.invalid(path, security, detail)
    proc = security.get("procMount")
    if proc is not None and proc not in ("Default", "Unmasked"):
        causes.not_supported(f"{path}.procMount", proc, ("Default", "Unmasked"))
