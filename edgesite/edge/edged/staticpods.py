"""Pods that files of this node want, and their mirrors in the API.

A static pod runs whatever the cloud says and whether there is one or not; its uid is made from the file. The mirror lets the cloud see
it: created when there is a link, again when somebody deletes it, anew when the file has changed. Statuses go to the mirror.

Units   Seconds; bytes.
Errors  None leave `run`: a file that is no pod is logged and passed over, once for each version of it.
State   What the files said last, and the mirrors by name, in memory.
Source  Kubernetes: "Create static Pods"; annotations kubernetes.io/config.{source,hash,mirror,seen}; KubeEdge v1.15, pod insert.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.edged.pod import MIRROR, SOURCE, Pod
from edgesite.edge.edged.services import PodServices
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.times import format_time

if TYPE_CHECKING:
    from edgesite.edge.edged.pods import Pods

__all__ = ["NotAPod", "StaticPods", "partition", "read_pod"]

HASH: Final = "kubernetes.io/config.hash"
SEEN: Final = "kubernetes.io/config.seen"
SOON_S: Final = 1.0  #: until the next look while something is not as it should be
MOST_BYTES: Final = 1 << 20


class NotAPod(Exception):
    """The file cannot be run as a pod; the text says why."""


@dataclass(frozen=True, slots=True)
class _Mirror:
    uid: str
    hash: str
    ending: bool


Signature = tuple[str, int, int]


class StaticPods:
    """`load` and `applied` get the mirrors that the cloud sends; `run` keeps pods and mirrors as the files want them."""

    def __init__(self, services: PodServices, pods: Pods, folder: Path | None) -> None:
        """``folder`` None: there are no static pods, and mirrors of earlier ones are removed."""
        self._services, self._pods, self._folder = services, pods, folder
        self._files: dict[Signature, Pod | None] = {}
        self._wanted: dict[str, Pod] = {}  # by namespace/name
        self._mirrors: dict[str, _Mirror] = {}  # by namespace/name
        self._read = False

    @staticmethod
    def is_mirror(obj: Mapping[str, Any]) -> bool:
        return MIRROR in ((obj.get("metadata") or {}).get("annotations") or {})

    def applied(self, obj: dict[str, Any]) -> None:
        """A mirror is there, or has changed."""
        pod = Pod(obj)
        self._mirrors[pod.key] = _Mirror(pod.uid, pod.annotations[MIRROR], pod.deleting)
        if self._read or self._folder is None:
            self._services.beside(self._keep_mirror, pod.key)

    def removed(self, obj: Mapping[str, Any]) -> bool:
        """Take note that a pod is gone from the API; return whether it was a mirror."""
        pod = Pod(dict(obj))
        known = self._mirrors.get(pod.key)
        if known is None or (pod.uid and pod.uid != known.uid):
            return False
        del self._mirrors[pod.key]
        if (wanted := self._wanted.get(pod.key)) is not None:
            self._pods.mirrored(wanted.uid, "")
        self._services.beside(self._keep_mirror, pod.key)
        return True

    async def look(self) -> bool:
        """Bring pods and mirrors to what the files want; return whether all is so."""
        if self._folder is None:
            return True
        try:
            found = await self._services.threads.run(self._scan, self._folder)
        except OSError as exc:
            self._services.log.warning("static pods cannot be read: %s", exc)
            return True  # the next look is soon enough
        self._read = True
        gone = [pod for key, pod in self._wanted.items() if key not in found]
        self._wanted = found
        for pod in gone:
            self._pods.end_static(pod)
        settled = [self._pods.apply_static(pod) for pod in found.values()]
        for key in dict.fromkeys((*found, *self._mirrors)):
            settled.append(await self._keep_mirror(key))
        return all(settled)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        services = self._services
        while self._folder is not None:
            settled = await self.look()
            if not settled:
                with anyio.move_on_after(services.settings.file_check_s):
                    await services.meta.wait_connected()
            await services.clock.sleep(services.settings.file_check_s if settled else SOON_S)

    async def _keep_mirror(self, key: str) -> bool:
        """Make, replace or remove one mirror; return whether it is as wanted."""
        services, pod, mirror = self._services, self._wanted.get(key), self._mirrors.get(key)
        if mirror is not None and (pod is None or mirror.ending or mirror.hash != pod.annotations[HASH]):
            namespace, name = key.split("/", 1)
            await services.meta.confirm_deleted(namespace, name, mirror.uid)
            return False  # its end is told; then another is made
        if pod is None:
            return True
        if mirror is None:
            if not services.meta.connected:
                return False
            mirror = await self._make_mirror(pod)
            if mirror is None:
                return True  # refused: tried again at the next regular look
        self._pods.mirrored(pod.uid, mirror.uid)
        return True

    async def _make_mirror(self, pod: Pod) -> _Mirror | None:
        annotations = {**pod.annotations, MIRROR: pod.annotations[HASH]}
        metadata = {one: value for one, value in pod.metadata.items() if one != "uid"} | {"annotations": annotations}
        obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}
        try:
            made = Pod(await self._services.meta.insert("pod", pod.namespace, pod.name, obj))
        except ApiError as exc:
            if exc.reason != "AlreadyExists":  # then the cloud is about to send it
                self._services.log.info("pod=%s has no mirror yet: %s", pod.key, exc.message)
            return None
        mirror = self._mirrors[pod.key] = _Mirror(made.uid, annotations[MIRROR], False)
        return mirror

    def _scan(self, folder: Path) -> dict[str, Pod]:
        """Read the files that are new or changed. Blocking. Raises OSError."""
        files: dict[Signature, Pod | None] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith(".") or not path.is_file():
                continue
            stat = path.stat()
            signature = (path.name, stat.st_mtime_ns, stat.st_size)
            files[signature] = self._files[signature] if signature in self._files else self._from_file(path)
        self._files = files
        found: dict[str, Pod] = {}
        for pod in files.values():
            if pod is not None and found.setdefault(pod.key, pod) is not pod:
                self._services.log.warning("pod=%s is in two files; the first one counts", pod.key)
        return found

    def _from_file(self, path: Path) -> Pod | None:
        services = self._services
        try:
            if path.stat().st_size > MOST_BYTES:
                raise NotAPod(f"larger than {MOST_BYTES} bytes")
            return read_pod(path.read_bytes(), services.node.name, services.clock.time())
        except (NotAPod, OSError) as exc:
            services.log.error("file=%s is no static pod: %s", path, exc)
            return None


def read_pod(content: bytes, node_name: str, now: float) -> Pod:
    """Return the pod of a file, YAML or JSON, with defaults, as this node runs it. Raises NotAPod."""
    obj = _parsed(content)
    metadata = dict(obj.get("metadata") or {})
    name = f"{metadata.get('name', '')}-{node_name}".lower()
    metadata |= {"name": name, "namespace": metadata.get("namespace") or "default"}
    spec = {**obj["spec"], "nodeName": node_name}
    digest = hashlib.sha256(json.dumps([node_name, metadata, spec])).hexdigest()[:32]
    stamps = {HASH: digest, SOURCE: "file", SEEN: format_time(now)}
    metadata |= {"uid": digest, "annotations": {**(metadata.get("annotations") or {}), **stamps}}
    # Nothing but the failure of the node itself may drive it away.
    spec["tolerations"] = [*(spec.get("tolerations") or ()), {"operator": "Exists", "effect": "NoExecute"}]
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    _default_and_check(obj)
    return Pod(obj)


def _parsed(content: bytes) -> dict[str, Any]:
    import yaml

    try:
        obj = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise NotAPod(f"it cannot be read: {' '.join(str(exc).split())}") from exc
    if not isinstance(obj, dict) or obj.get("kind") != "Pod" or obj.get("apiVersion") != "v1":
        raise NotAPod("it holds no object of kind Pod, apiVersion v1")
    if not isinstance(obj.get("metadata"), dict) or not isinstance(obj.get("spec"), dict):
        raise NotAPod("it lacks metadata or spec")
    return obj


def _default_and_check(obj: dict[str, Any]) -> None:
    from edgesite.kube import defaults, resources, validation

    try:
        defaults.apply("", "v1", "Pod", obj)
        causes = validation.validate(resources.PODS, obj)
    except (ApiError, TypeError, AttributeError, KeyError, ValueError) as exc:  # members of another type than a pod's
        raise NotAPod(f"it is no valid pod: {exc}") from exc
    if causes:
        raise NotAPod("; ".join(f"{one.get('field')}: {one.get('message')}" for one in causes[:5]))


def partition(objects: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return pods to be run, and mirrors."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for one in objects:
        found[StaticPods.is_mirror(one)].append(one)
    return found
