"""What of a pod's volumes a container sees, and how: sub-paths, read-only to the bottom, propagation, block devices. Blocking.

Errors  VolumeError, with the words for the container's status; OSError.
Source  core/v1 VolumeMount, VolumeDevice; what is read-only whatever the pod says, as kubelet has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.environment import expand
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import Device, Mount, Propagation
from edgesite.edge.edged.volumes import subpaths
from edgesite.edge.edged.volumes.claims import claim_name
from edgesite.edge.edged.volumes.host import resolve_sub_path
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["Sources", "devices_of", "mounts_of"]

_PROPAGATION: Final = {
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}
_READONLY: Final = ("configMap", "secret", "downwardAPI", "projected", "image")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pod's volumes are. ``images`` are ids of images that the runtime mounts itself, by volume."""

    paths: Mapping[str, str]
    images: Mapping[str, str]
    places: Path  #: for what is bound on the way
    isolates: bool  #: whether the runtime has mounts at all
    recursive: bool  #: whether this host can make a whole tree read-only


def mounts_of(pod: Pod, container: Mapping[str, Any], env: Mapping[str, str], sources: Sources) -> list[Mount]:
    """Return the mounts that a container asks for. Raises VolumeError, OSError."""
    volumes = {one.get("name"): one for one in pod.spec.get("volumes") or ()}
    found = []
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        place = sources.places / mount.get("name", "") / container["name"] / str(number)
        found.append(_mount(pod, mount, volumes.get(mount.get("name")) or {}, container, env, sources, place))
    return found


def _mount(
    pod: Pod,
    mount: Mapping[str, Any],
    volume: Mapping[str, Any],
    container: Mapping[str, Any],
    env: Mapping[str, str],
    sources: Sources,
    place: Path,
) -> Mount:
    name, path = mount.get("name", ""), mount.get("mountPath", "")
    sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
    if (image := sources.images.get(name)) is not None:
        return Mount(path, "", readonly=True, image=image, image_sub_path=sub_path)
    if (source := sources.paths.get(name)) is None:
        raise VolumeError(f'cannot find volume "{name}" to mount into container "{container["name"]}"')
    if claim_name(pod, volume) and Path(source).is_block_device():
        raise VolumeError(f"volume {name} has volumeMode Block, but is specified in volumeMounts")
    if sub_path and sources.isolates:
        source = str(subpaths.pin(Path(source), sub_path, place))
    elif sub_path:
        source = str(resolve_sub_path(Path(source), sub_path))
    claim = volume.get("persistentVolumeClaim") or {}
    readonly = bool(mount.get("readOnly") or claim.get("readOnly")) or any(kind in volume for kind in _READONLY)
    if readonly and sources.isolates and _to_the_bottom(mount, name, sources.recursive):
        source = str(subpaths.hold_read_only(Path(source), place.with_name(f"{place.name}-ro")))
    propagation = _PROPAGATION.get(mount.get("mountPropagation") or "", Propagation.PRIVATE)
    return Mount(path, source, readonly, propagation)


def _to_the_bottom(mount: Mapping[str, Any], name: str, possible: bool) -> bool:
    """Whether what is mounted below the volume is to be read-only, too. Raises VolumeError."""
    wanted = mount.get("recursiveReadOnly") or "Disabled"
    if wanted == "Enabled" and not possible:
        raise VolumeError(f'volume "{name}" requested recursive read-only mode, but it is not supported by this host')
    return possible and wanted in ("Enabled", "IfPossible")


def devices_of(container: Mapping[str, Any], sources: Sources) -> list[Device]:
    """Return the block devices that a container asks for. Raises VolumeError."""
    found = []
    for one in container.get("volumeDevices") or ():
        name = one.get("name", "")
        if (source := sources.paths.get(name)) is None:
            raise VolumeError(f'cannot find volume "{name}" to map into container "{container["name"]}"')
        if not Path(source).is_block_device():
            raise VolumeError(f'volume "{name}" is no block device: {source}')
        found.append(Device(one.get("devicePath", ""), source, "mrw"))
    return found
