"""What the files of configMap, secret, downwardAPI and projected volumes hold. Pure: objects are arguments.

Errors  VolumeError: what the volume refers to is missing or wrong; the text is for the pod's FailedMount event.
Source  core/v1 KeyToPath, ConfigMapVolumeSource, SecretVolumeSource, DownwardAPIVolumeSource, ProjectedVolumeSource.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from edgesite.edge.edged.environment import ConfigError, Facts, Reference, field_value, resource_value
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes.atomic import File

__all__ = ["DEFAULT_MODE", "VolumeError", "projected_sources", "source_files", "volume_references"]

DEFAULT_MODE: Final = 0o644


class VolumeError(Exception):
    """The volume cannot be set up; the text says why."""


def volume_references(pod: Pod) -> Iterator[Reference]:
    """Give every ConfigMap and Secret that the pod's volumes name."""
    for volume in pod.spec.get("volumes") or ():
        for source in projected_sources(volume):
            if ref := source.get("configMap"):
                yield Reference("configmap", ref.get("name", ""), bool(ref.get("optional")))
            if ref := source.get("secret"):
                yield Reference("secret", _secret_name(ref), bool(ref.get("optional")))


def projected_sources(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sources of a volume that is made of objects; a plain one counts as its own single source."""
    if "projected" in volume:
        return list((volume["projected"] or {}).get("sources") or ())
    return [{kind: volume[kind] or {}} for kind in ("configMap", "secret", "downwardAPI") if kind in volume]


def _secret_name(ref: Mapping[str, Any]) -> str:
    return ref.get("secretName") or ref.get("name") or ""


def source_files(
    pod: Pod,
    source: Mapping[str, Any],
    objects: Mapping[tuple[str, str], Mapping[str, Any] | None],
    facts: Facts,
    default_mode: int,
) -> dict[str, File]:
    """Return the files of one source, tokens aside. Raises VolumeError."""
    if (ref := source.get("configMap")) is not None:
        return _keyed("configmap", ref.get("name", ""), ref, pod, objects, default_mode)
    if (ref := source.get("secret")) is not None:
        return _keyed("secret", _secret_name(ref), ref, pod, objects, default_mode)
    if (ref := source.get("downwardAPI")) is not None:
        return {
            _checked(item.get("path", "")): _downward(pod, item, facts, default_mode) for item in ref.get("items") or ()
        }
    raise VolumeError(f"unsupported projected source: {', '.join(source)}")


def _keyed(
    kind: str,
    name: str,
    ref: Mapping[str, Any],
    pod: Pod,
    objects: Mapping[tuple[str, str], Mapping[str, Any] | None],
    default_mode: int,
) -> dict[str, File]:
    obj = objects.get((kind, name))
    if obj is None:
        if ref.get("optional"):
            return {}
        raise VolumeError(f'{kind} "{name}" not found')
    values = _values(kind, obj)
    items = ref.get("items")
    if not items:
        return {_checked(key): File(value, default_mode) for key, value in values.items()}
    files = {}
    for item in items:
        key = item.get("key", "")
        if key not in values:
            if ref.get("optional"):
                continue
            word = "secret" if kind == "secret" else "config"
            raise VolumeError(f"{kind} references non-existent {word} key: {key}")
        mode = item.get("mode")
        files[_checked(item.get("path", ""))] = File(values[key], default_mode if mode is None else mode)
    return files


def _values(kind: str, obj: Mapping[str, Any]) -> dict[str, bytes]:
    try:
        if kind == "secret":
            return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}
        values = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return values | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    except binascii.Error as exc:
        raise VolumeError(f"a value of the {kind} is not base64") from exc


def _downward(pod: Pod, item: Mapping[str, Any], facts: Facts, default_mode: int) -> File:
    mode = item.get("mode")
    try:
        if ref := item.get("fieldRef"):
            text = field_value(pod, ref.get("fieldPath", ""), facts)
        else:
            selector = item.get("resourceFieldRef") or {}
            wanted = selector.get("containerName", "")
            holder = next((one for one in pod.containers + pod.init_containers if one.get("name") == wanted), {})
            text = resource_value(pod, holder, selector, facts)
    except ConfigError as exc:
        raise VolumeError(str(exc)) from exc
    return File(text.encode(), default_mode if mode is None else mode)


def _checked(path: str) -> str:
    """A relative path that stays inside the volume. The API server checks this too; a store on disk is not the API server."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeError(f"path {path!r} of an item must stay inside the volume")
    return path
