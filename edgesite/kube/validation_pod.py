"""Validation of pods and pod templates, and of what an update may change in a pod.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of core/v1 Pod.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final

from edgesite.kube import names
from edgesite.kube.causes import MAX_INT32, NOT_NEGATIVE, Causes
from edgesite.kube.validation_container import check_container, check_resources
from edgesite.kube.validation_meta import check_annotations, check_labels, check_selector
from edgesite.kube.validation_volume import check_volumes

__all__ = ["check_node_term", "check_pod", "check_pod_spec", "check_pod_template", "check_pod_update", "is_ip"]

Object = dict[str, Any]
_DNS_POLICIES: Final = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MAX_NAMESERVERS: Final = 3
_MAX_SEARCHES: Final = 32
_CHANGEABLE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(causes: Causes, pod: Object) -> None:
    check_pod_spec(causes, "spec", pod.get("spec", {}))


def check_pod_template(causes: Causes, path: str, template: Object) -> None:
    meta = template.get("metadata", {})
    check_labels(causes, f"{path}.labels", meta.get("labels"))
    check_annotations(causes, f"{path}.annotations", meta.get("annotations"))
    check_pod_spec(causes, f"{path}.spec", template.get("spec", {}))
    if template.get("spec", {}).get("ephemeralContainers"):
        causes.forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def check_pod_spec(causes: Causes, path: str, spec: Object) -> None:
    volumes = check_volumes(causes, f"{path}.volumes", spec.get("volumes", []))
    _check_containers(causes, path, spec, volumes)
    causes.choice(f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
    causes.choice(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    _check_dns(causes, path, spec)
    causes.not_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= MAX_INT32:
        causes.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    check_labels(causes, f"{path}.nodeSelector", spec.get("nodeSelector"))
    for field in ("nodeName", "serviceAccountName", "priorityClassName", "runtimeClassName"):
        if spec.get(field):
            causes.each(f"{path}.{field}", spec[field], names.dns1123_subdomain_problems(spec[field]))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            causes.each(f"{path}.{field}", spec[field], names.dns1123_label_problems(spec[field]))
    for index, one in enumerate(spec.get("imagePullSecrets", ())):
        if not one.get("name"):
            causes.required(f"{path}.imagePullSecrets[{index}].name")
    for index, alias in enumerate(spec.get("hostAliases", ())):
        if not is_ip(alias.get("ip", "")):
            causes.invalid(f"{path}.hostAliases[{index}].ip", alias.get("ip", ""), _NO_IP)
        for host in alias.get("hostnames", ()):
            causes.each(f"{path}.hostAliases[{index}].hostnames", host, names.dns1123_subdomain_problems(host))
    for index, toleration in enumerate(spec.get("tolerations", ())):
        _check_toleration(causes, f"{path}.tolerations[{index}]", toleration)
    _check_affinity(causes, f"{path}.affinity", spec.get("affinity", {}))
    _check_spread(causes, f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints", []))
    for index, gate in enumerate(spec.get("readinessGates", ())):
        condition = gate.get("conditionType", "")
        causes.each(
            f"{path}.readinessGates[{index}].conditionType", condition, names.qualified_name_problems(condition)
        )
    if "resources" in spec:
        check_resources(causes, f"{path}.resources", spec["resources"])
    _check_sysctls(causes, f"{path}.securityContext.sysctls", spec.get("securityContext", {}).get("sysctls", ()))
    if spec.get("hostUsers") is False:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                causes.forbidden(f"{path}.{field}", "when `hostUsers` is false")
    system = spec.get("os", {}).get("name")
    if "os" in spec:
        causes.choice(f"{path}.os.name", system, ("linux", "windows"))


def _check_sysctls(causes: Causes, path: str, sysctls: Iterable[Object]) -> None:
    seen: set[str] = set()
    for index, one in enumerate(sysctls):
        name, at = one.get("name", ""), f"{path}[{index}].name"
        if not name:
            causes.required(at)
        elif len(name) > _SYSCTL_MOST or not _SYSCTL.fullmatch(name):
            causes.invalid(at, name, f"must have at most {_SYSCTL_MOST} characters and match regex ^{_SYSCTL.pattern}$")
        elif name in seen:
            causes.duplicate(at, name)
        seen.add(name)


_SYSCTL_MOST: Final = 253
_SYSCTL: Final = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_NO_IP: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_containers(causes: Causes, path: str, spec: Object, volumes: set[str]) -> None:
    seen: set[str] = set()
    host_ports: set[str] = set()
    if not spec.get("containers"):
        causes.required(f"{path}.containers")
    groups = (("containers", "container"), ("initContainers", "init"), ("ephemeralContainers", "ephemeral"))
    for field, kind in groups:
        for index, container in enumerate(spec.get(field, ())):
            at = f"{path}.{field}[{index}]"
            check_container(causes, at, container, volumes, kind)
            name = container.get("name", "")
            if name and name in seen:
                causes.duplicate(f"{at}.name", name)
            seen.add(name)
            if kind == "container":
                _check_host_ports(causes, at, container, host_ports, bool(spec.get("hostNetwork")))


def _check_host_ports(causes: Causes, path: str, container: Object, seen: set[str], host_network: bool) -> None:
    for index, port in enumerate(container.get("ports", ())):
        host_port = port.get("hostPort", 0)
        at = f"{path}.ports[{index}]"
        if host_network and host_port != port.get("containerPort", 0) and host_port:
            causes.invalid(
                f"{at}.containerPort", port.get("containerPort", 0), "must match `hostPort` when `hostNetwork` is true"
            )
        if not host_port:
            continue
        place = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{host_port}"
        if place in seen:
            causes.duplicate(f"{at}.hostPort", place)
        seen.add(place)


def _check_dns(causes: Causes, path: str, spec: Object) -> None:
    config = spec.get("dnsConfig")
    servers = (config or {}).get("nameservers", [])
    at = f"{path}.dnsConfig"
    if spec.get("dnsPolicy") == "None":
        if config is None:
            causes.required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
        elif not servers:
            causes.required(f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if config is None:
        return
    if len(servers) > _MAX_NAMESERVERS:
        causes.invalid(f"{at}.nameservers", servers, f"must not have more than {_MAX_NAMESERVERS} nameservers")
    for index, server in enumerate(servers):
        if not is_ip(server):
            causes.invalid(f"{at}.nameservers[{index}]", server, _NO_IP)
    searches = config.get("searches", [])
    if len(searches) > _MAX_SEARCHES:
        causes.invalid(f"{at}.searches", searches, f"must not have more than {_MAX_SEARCHES} search paths")
    for index, option in enumerate(config.get("options", ())):
        if not option.get("name"):
            causes.required(f"{at}.options[{index}]", "must not be empty")


def _check_toleration(causes: Causes, path: str, toleration: Object) -> None:
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    if key:
        causes.each(f"{path}.key", key, names.qualified_name_problems(key))
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        causes.invalid(f"{path}.operator", operator, detail)
    effect = toleration.get("effect", "")
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        causes.invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    value = toleration.get("value", "")
    if operator in ("", "Equal"):
        causes.each(f"{path}.operator", value, names.label_value_problems(value))
    elif operator == "Exists":
        if value:
            causes.invalid(f"{path}.operator", toleration, "value must be empty when `operator` is 'Exists'")
    elif operator not in ("Lt", "Gt"):
        causes.not_supported(f"{path}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in _EFFECTS:
        causes.not_supported(f"{path}.effect", effect, _EFFECTS)


def _check_affinity(causes: Causes, path: str, affinity: Object) -> None:
    node = affinity.get("nodeAffinity", {})
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None:
        at = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        if not required.get("nodeSelectorTerms"):
            causes.required(at, "must have at least one node selector term")
        for index, term in enumerate(required.get("nodeSelectorTerms", ())):
            check_node_term(causes, f"{at}[{index}]", term)
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    for index, term in enumerate(node.get(preferred, ())):
        at = f"{path}.nodeAffinity.{preferred}[{index}]"
        _check_weight(causes, at, term)
        check_node_term(causes, f"{at}.preference", term.get("preference", {}))
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind, {})
        for index, term in enumerate(rules.get("requiredDuringSchedulingIgnoredDuringExecution", ())):
            _check_pod_term(causes, f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}]", term)
        for index, term in enumerate(rules.get(preferred, ())):
            at = f"{path}.{kind}.{preferred}[{index}]"
            _check_weight(causes, at, term)
            _check_pod_term(causes, f"{at}.podAffinityTerm", term.get("podAffinityTerm", {}))


def _check_weight(causes: Causes, path: str, term: Object) -> None:
    if not 1 <= term.get("weight", 0) <= 100:
        causes.invalid(f"{path}.weight", term.get("weight", 0), "must be in the range 1-100")


def check_node_term(causes: Causes, path: str, term: Object) -> None:
    """A term of a node selector."""
    for index, one in enumerate(term.get("matchExpressions", ())):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = one.get("operator", ""), one.get("values", ())
        if operator in ("In", "NotIn"):
            if not values:
                causes.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                causes.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in ("Gt", "Lt"):
            if len(values) != 1:
                causes.required(f"{at}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        else:
            causes.invalid(f"{at}.operator", operator, "not a valid selector operator")
        causes.each(f"{at}.key", one.get("key", ""), names.qualified_name_problems(one.get("key", "")))
    for index, one in enumerate(term.get("matchFields", ())):
        at = f"{path}.matchFields[{index}]"
        if one.get("operator") not in ("In", "NotIn"):
            causes.invalid(f"{at}.operator", one.get("operator", ""), "not a valid selector operator")
        elif len(one.get("values", ())) != 1:
            causes.required(
                f"{at}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
        if one.get("key") != "metadata.name":
            causes.invalid(f"{at}.key", one.get("key", ""), "not a valid field selector key")


def _check_pod_term(causes: Causes, path: str, term: Object) -> None:
    check_selector(causes, f"{path}.labelSelector", term.get("labelSelector"))
    check_selector(causes, f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for namespace in term.get("namespaces", ()):
        causes.each(f"{path}.namespace", namespace, names.dns1123_label_problems(namespace))
    key = term.get("topologyKey", "")
    if not key:
        causes.required(f"{path}.topologyKey", "can not be empty")
    else:
        causes.each(f"{path}.topologyKey", key, names.qualified_name_problems(key))


def _check_spread(causes: Causes, path: str, constraints: list[Object]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, one in enumerate(constraints):
        at = f"{path}[{index}]"
        if one.get("maxSkew", 0) <= 0:
            causes.invalid(f"{at}.maxSkew", one.get("maxSkew", 0), "must be greater than zero")
        key, action = one.get("topologyKey", ""), one.get("whenUnsatisfiable", "")
        if not key:
            causes.required(f"{at}.topologyKey", "can not be empty")
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            causes.not_supported(f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        if (key, action) in seen:
            causes.duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
        seen.add((key, action))
        check_selector(causes, f"{at}.labelSelector", one.get("labelSelector"))


def check_pod_update(causes: Causes, new: Object, old: Object) -> None:
    """What an update (not of the status) may change in a pod."""
    new_spec, old_spec = new.get("spec", {}), old.get("spec", {})
    for field in ("containers", "initContainers"):
        if len(new_spec.get(field, ())) != len(old_spec.get(field, ())):
            causes.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
    _check_deadline_update(causes, new_spec, old_spec)
    if not _only_adds(new_spec.get("tolerations", []), old_spec.get("tolerations", [])):
        causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    if _changeable_removed(new_spec, old_spec) != _changeable_removed(old_spec, old_spec):
        causes.forbidden("spec", _CHANGEABLE)


def _check_deadline_update(causes: Causes, new: Object, old: Object) -> None:
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if before is not None and after is None:
        causes.invalid("spec.activeDeadlineSeconds", after, "must not update from a positive integer to nil value")
    elif before is not None and after is not None and after > before:
        detail = "must be less than or equal to previous value"
        causes.invalid("spec.activeDeadlineSeconds", after, detail)
    elif after is not None and after < 0:
        causes.invalid("spec.activeDeadlineSeconds", after, NOT_NEGATIVE)


def _only_adds(new: list[Object], old: list[Object]) -> bool:
    def key(toleration: Object) -> Object:
        return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}

    kept = [key(one) for one in new]
    return all(key(one) in kept for one in old)


def _changeable_removed(spec: Object, old: Object) -> Object:
    """The spec without what may change."""
    rest = {name: value for name, value in spec.items() if name not in ("activeDeadlineSeconds", "tolerations")}
    for field in ("containers", "initContainers"):
        if field in rest:
            rest[field] = [{**one, "image": ""} for one in rest[field]]
    if old.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        rest["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    if old.get("schedulingGates"):
        # A gated pod is not scheduled yet: gates may go, and where it may run may be narrowed.
        for name in ("schedulingGates", "nodeSelector", "affinity"):
            rest.pop(name, None)
    return rest
