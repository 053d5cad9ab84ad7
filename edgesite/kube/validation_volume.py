"""Validation of a pod's volumes and of what persistent volumes share with them.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of core/v1 Volume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import names, quantity
from edgesite.kube.causes import Causes
from edgesite.kube.validation_container import check_key

__all__ = ["check_claim_spec", "check_volume_source", "check_volumes"]

Object = dict[str, Any]
ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_MIN_TOKEN_S: Final = 600


def check_volumes(causes: Causes, path: str, volumes: list[Object]) -> set[str]:
    """All volumes of a pod. Returns their names."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.required(f"{at}.name")
        else:
            causes.each(f"{at}.name", name, names.dns1123_label_problems(name))
        if name in seen:
            causes.duplicate(f"{at}.name", name)
        seen.add(name)
        check_volume_source(causes, at, {key: value for key, value in volume.items() if key != "name"})
    return seen


def check_volume_source(causes: Causes, path: str, sources: Object) -> None:
    """The one source that a volume has to have."""
    if not sources:
        causes.required(path, "must specify a volume type")
    for number, (name, source) in enumerate(sources.items()):
        if number:
            causes.forbidden(f"{path}.{name}", "may not specify more than 1 volume type")
        elif name in _SOURCES:
            _SOURCES[name](causes, f"{path}.{name}", source)
        else:
            for field in _REQUIRED.get(name, ()):
                if not source.get(field):
                    causes.required(f"{path}.{name}.{field}")


#: Sources of which only some members need to be there.
_REQUIRED: Final = {
    "awsElasticBlockStore": ("volumeID",),
    "azureFile": ("secretName", "shareName"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "csi": ("driver",),
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "glusterfs": ("endpoints", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "local": ("path",),
    "persistentVolumeClaim": ("claimName",),
    "rbd": ("monitors", "image"),
    "vsphereVolume": ("volumePath",),
}


def _empty_dir(causes: Causes, path: str, source: Object) -> None:
    if "sizeLimit" in source and quantity.parse(source["sizeLimit"]) < quantity.ZERO:
        causes.invalid(f"{path}.sizeLimit", source["sizeLimit"], "SizeLimit field must be a valid resource quantity")


def _host_path(causes: Causes, path: str, source: Object) -> None:
    place = source.get("path", "")
    if not place:
        causes.required(f"{path}.path")
    elif ".." in place.split("/"):
        causes.invalid(f"{path}.path", place, "must not contain '..'")
    if source.get("type", "") not in _HOST_PATH_TYPES:
        causes.not_supported(f"{path}.type", source["type"], _HOST_PATH_TYPES)


def _nfs(causes: Causes, path: str, source: Object) -> None:
    if not source.get("server"):
        causes.required(f"{path}.server")
    place = source.get("path", "")
    if not place:
        causes.required(f"{path}.path")
    elif not place.startswith("/"):
        causes.invalid(f"{path}.path", place, "must be an absolute path")


def _secret(causes: Causes, path: str, source: Object) -> None:
    if not source.get("secretName"):
        causes.required(f"{path}.secretName")
    _files(causes, path, source)


def _config_map(causes: Causes, path: str, source: Object) -> None:
    if not source.get("name"):
        causes.required(f"{path}.name")
    _files(causes, path, source)


def _files(causes: Causes, path: str, source: Object) -> None:
    _mode(causes, f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items", ())):
        at = f"{path}.items[{index}]"
        check_key(causes, f"{at}.key", item.get("key", ""))
        _file_path(causes, f"{at}.path", item.get("path", ""))
        _mode(causes, f"{at}.mode", item.get("mode"))


def _downward(causes: Causes, path: str, source: Object) -> None:
    _mode(causes, f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items", ())):
        at = f"{path}.items[{index}]"
        _file_path(causes, f"{at}.path", item.get("path", ""))
        if "fieldRef" in item:
            if not item["fieldRef"].get("fieldPath"):
                causes.required(f"{at}.fieldRef.fieldPath")
            if "resourceFieldRef" in item:
                causes.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif "resourceFieldRef" not in item:
            causes.required(at, "one of fieldRef and resourceFieldRef is required")
        _mode(causes, f"{at}.mode", item.get("mode"))


def _projected(causes: Causes, path: str, source: Object) -> None:
    _mode(causes, f"{path}.defaultMode", source.get("defaultMode"))
    for index, one in enumerate(source.get("sources", ())):
        at = f"{path}.sources[{index}]"
        if not one:
            causes.required(at, "must specify a volume projection type")
        for number, (name, projection) in enumerate(one.items()):
            if number:
                causes.forbidden(f"{at}.{name}", "may not specify more than 1 volume type")
            elif name in ("secret", "configMap"):
                if not projection.get("name"):
                    causes.required(f"{at}.{name}.name")
                _files(causes, f"{at}.{name}", projection)
            elif name == "downwardAPI":
                _downward(causes, f"{at}.downwardAPI", projection)
            elif name == "serviceAccountToken":
                _token(causes, f"{at}.serviceAccountToken", projection)


def _token(causes: Causes, path: str, projection: Object) -> None:
    seconds = projection.get("expirationSeconds", _MIN_TOKEN_S)
    if seconds < _MIN_TOKEN_S:
        causes.invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    elif seconds > 1 << 32:
        causes.invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    _file_path(causes, f"{path}.path", projection.get("path", ""))


def _ephemeral(causes: Causes, path: str, source: Object) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        causes.required(f"{path}.volumeClaimTemplate")
    else:
        check_claim_spec(causes, f"{path}.volumeClaimTemplate.spec", template.get("spec", {}))


def check_claim_spec(causes: Causes, path: str, spec: Object) -> None:
    """The spec of a PersistentVolumeClaim."""
    modes = spec.get("accessModes", [])
    if not modes:
        causes.required(f"{path}.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in ACCESS_MODES:
            causes.not_supported(f"{path}.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.forbidden(f"{path}.accessModes", "may not use ReadWriteOncePod with other access modes")
    storage = spec.get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        causes.required(f"{path}.resources[storage]")
    elif quantity.parse(storage) <= quantity.ZERO:
        causes.invalid(f"{path}.resources[storage]", storage, "must be greater than zero")
    name = spec.get("storageClassName")
    if name:
        causes.each(f"{path}.storageClassName", name, names.dns1123_subdomain_problems(name))
    mode = spec.get("volumeMode")
    if mode is not None and mode not in ("Block", "Filesystem"):
        causes.not_supported(f"{path}.volumeMode", mode, ("Block", "Filesystem"))


def _file_path(causes: Causes, path: str, value: str) -> None:
    if not value:
        causes.required(path)
        return
    if value.startswith("/"):
        causes.invalid(path, value, "must be a relative path")
    parts = value.split("/")
    if ".." in parts:
        causes.invalid(path, value, "must not contain '..'")
    elif parts[0].startswith(".."):
        causes.invalid(path, value, "must not start with '..'")


def _mode(causes: Causes, path: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        causes.invalid(path, mode, _MODE)


_SOURCES: Final[dict[str, Callable[[Causes, str, Object], None]]] = {
    "configMap": _config_map,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "hostPath": _host_path,
    "nfs": _nfs,
    "projected": _projected,
    "secret": _secret,
}
