"""Defaults of pods and of pod templates. Objects are changed in place; they are as `schema_decode` leaves them.

Source  Defaults of core/v1 in kube-apiserver 1.36 (values only).
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["add_default_tolerations", "claim_spec_defaults", "fill", "pod_defaults", "pod_spec_defaults"]

Object = dict[str, Any]
_UNREACHABLE_TOLERATED_S: Final = 300
_FILE_MODE: Final = 0o644
_TOKEN_LIFETIME_S: Final = 3600


def fill(obj: Object, **defaults: Any) -> None:
    """Set what is missing or an empty string."""
    for key, value in defaults.items():
        if obj.get(key) in (None, ""):
            obj[key] = value


def pod_defaults(pod: Object) -> None:
    """A Pod of its own: a template's defaults, and some that only pods get."""
    spec = pod.setdefault("spec", {})
    pod_spec_defaults(spec)
    fill(spec, enableServiceLinks=True)
    for container in _containers(spec):
        _requests_from_limits(container["resources"])
        if spec.get("hostNetwork"):
            for port in container.get("ports", ()):
                if not port.get("hostPort") and "containerPort" in port:
                    port["hostPort"] = port["containerPort"]
    if "resources" in spec:
        _requests_from_limits(spec["resources"])
    pod.setdefault("status", {})


def pod_spec_defaults(spec: Object) -> None:
    """The spec of a pod or of a pod template."""
    fill(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        terminationGracePeriodSeconds=30,
        schedulerName="default-scheduler",
    )
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in (*_containers(spec), *spec.get("ephemeralContainers", ())):
        _container_defaults(container)
    for volume in spec.get("volumes", ()):
        _volume_defaults(volume)


def claim_spec_defaults(spec: Object) -> None:
    """The spec of a PersistentVolumeClaim, wherever it stands."""
    fill(spec, volumeMode="Filesystem")
    spec.setdefault("resources", {})


def add_default_tolerations(pod: Object) -> None:
    """Tolerate a node that is gone for some minutes, as the admission plugin DefaultTolerationSeconds has it."""
    spec = pod["spec"]
    tolerations: list[Object] = list(spec.get("tolerations", ()))
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates_no_execute(one, key) for one in tolerations):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": _UNREACHABLE_TOLERATED_S,
                }
            )
    spec["tolerations"] = tolerations


def _tolerates_no_execute(toleration: Object, key: str) -> bool:
    return toleration.get("key", "") in (key, "") and toleration.get("effect", "") in ("NoExecute", "")


def _containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def _container_defaults(container: Object) -> None:
    image = container.get("image", "")
    if image:
        fill(container, imagePullPolicy="Always" if _is_latest(image) else "IfNotPresent")
    else:
        fill(container, imagePullPolicy="IfNotPresent")
    fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    container.setdefault("resources", {})
    for port in container.get("ports", ()):
        fill(port, protocol="TCP")
    for env in container.get("env", ()):
        source = env.get("valueFrom", {})
        if "fieldRef" in source:
            fill(source["fieldRef"], apiVersion="v1")
        if "resourceFieldRef" in source:
            fill(source["resourceFieldRef"], divisor="0")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe_defaults(container[name])
    for handler in container.get("lifecycle", {}).values():
        if isinstance(handler, dict) and "httpGet" in handler:
            fill(handler["httpGet"], path="/", scheme="HTTP")


def _is_latest(image: str) -> bool:
    """Whether an image reference names the tag latest, or neither tag nor digest."""
    reference, _, digest = image.partition("@")
    _, colon, tag = reference.rpartition("/")[2].partition(":")
    return tag == "latest" if colon else not digest


def _probe_defaults(probe: Object) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    if "httpGet" in probe:
        fill(probe["httpGet"], path="/", scheme="HTTP")
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _requests_from_limits(resources: Object) -> None:
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _volume_defaults(volume: Object) -> None:
    sources = [name for name in volume if name != "name"]
    if not sources:
        volume["emptyDir"] = {}
        return
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if name in volume:
            fill(volume[name], defaultMode=_FILE_MODE)
    _downward_items(volume.get("downwardAPI", {}))
    for source in volume.get("projected", {}).get("sources", ()):
        _downward_items(source.get("downwardAPI", {}))
        if "serviceAccountToken" in source:
            fill(source["serviceAccountToken"], expirationSeconds=_TOKEN_LIFETIME_S)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    if "iscsi" in volume:
        fill(volume["iscsi"], iscsiInterface="default")
    if "rbd" in volume:
        fill(volume["rbd"], pool="rbd", user="admin", keyring="/etc/ceph/keyring")
    if "azureDisk" in volume:
        fill(volume["azureDisk"], cachingMode="ReadWrite", kind="Shared", fsType="ext4", readOnly=False)
    if "scaleIO" in volume:
        fill(volume["scaleIO"], storageMode="ThinProvisioned", fsType="xfs")
    if "image" in volume:
        reference = volume["image"].get("reference", "")
        fill(volume["image"], pullPolicy="Always" if _is_latest(reference) else "IfNotPresent")
    if "ephemeral" in volume:
        claim_spec_defaults(volume["ephemeral"].get("volumeClaimTemplate", {}).setdefault("spec", {}))


def _downward_items(source: Object) -> None:
    for item in source.get("items", ()):
        if "fieldRef" in item:
            fill(item["fieldRef"], apiVersion="v1")
        if "resourceFieldRef" in item:
            fill(item["resourceFieldRef"], divisor="0")
