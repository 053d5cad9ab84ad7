"""What the API is told of this node's CSI drivers: the CSINode, and the node's annotation and topology labels.

A driver works here as soon as it is registered; the API hears of it when there is a link.

Units   Seconds.
Errors  None leave `run`: what the cloud refuses is logged and tried again with back-off and jitter.
State   In memory: what is to be told. A driver that is gone for a moment only, as when its pod starts anew, is not taken back.
Source  storage/v1 CSINode; kubelet's csi plugin: annotation csi.volume.kubernetes.io/nodeid, topology labels, owner of a CSINode.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.context import Clock
from edgesite.kube import json
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.edge.edged.volumes.csi.driver import CsiDriver
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["CsiNodeReport", "csi_node", "node_metadata"]

ANNOTATION: Final = "csi.volume.kubernetes.io/nodeid"
RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0
GONE_S: Final = 60.0  #: A driver that is away for longer is taken out of the CSINode.
Object = dict[str, Any]


class CsiNodeReport:
    def __init__(
        self,
        meta: Meta,
        node: str,
        clock: Clock,
        random: random.Random,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        is_told: Callable[[], bool],
    ) -> None:
        """``is_told``: whether the cloud knows of CSINodes; KubeEdge's does not."""
        self._meta, self._node, self._clock, self._random, self._log = meta, node, clock, random, log
        self._is_told = is_told
        self._drivers: Mapping[str, CsiDriver] = {}
        self._changed = anyio.Event()
        self._gone = False

    def changed(self, drivers: Mapping[str, CsiDriver]) -> None:
        """Drivers have come or gone."""
        self._gone = len(drivers) < len(self._drivers)
        self._drivers = dict(drivers)
        self._changed.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        delay_s = RETRY_FIRST_S
        while True:
            await self._changed.wait()
            if self._gone:
                with anyio.move_on_after(GONE_S):
                    self._changed = anyio.Event()
                    await self._changed.wait()
            self._changed = anyio.Event()
            self._gone = False
            await self._meta.wait_connected()
            try:
                await self._tell_node()
                if self._is_told():
                    await self._tell_csi_node()
                delay_s = RETRY_FIRST_S
            except ApiError as exc:
                self._log.info("the CSI drivers of node=%s cannot be told yet: %s", self._node, exc.message)
                self._changed.set()
                await self._clock.sleep(delay_s * (0.75 + self._random.random() / 2))
                delay_s = min(delay_s * 2, RETRY_MOST_S)

    async def _tell_node(self) -> None:
        node = await self._meta.query_remote("node", "", self._node)
        metadata = node_metadata(node.get("metadata") or {}, self._drivers)
        if metadata is not None:
            await self._meta.update("node", "", self._node, node | {"metadata": metadata})

    async def _tell_csi_node(self) -> None:
        try:
            found: Object | None = await self._meta.query_remote("csinode", "", self._node)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            found = None
        if found is None:
            node = await self._meta.query_remote("node", "", self._node)
            uid = str((node.get("metadata") or {}).get("uid") or "")
            await self._meta.insert("csinode", "", self._node, csi_node(self._node, uid, self._drivers))
            return
        wanted = csi_node(self._node, "", self._drivers)["spec"]
        if found.get("spec") != wanted:
            await self._meta.update("csinode", "", self._node, found | {"spec": wanted})


def csi_node(node: str, uid: str, drivers: Mapping[str, CsiDriver]) -> Object:
    """Return the CSINode; ``uid`` is the node's."""
    metadata: Object = {"name": node}
    if uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]
    listed = []
    for name, driver in sorted(drivers.items()):
        one: Object = {"name": name, "nodeID": driver.info.node_id, "topologyKeys": sorted(driver.info.topology)}
        if driver.info.max_volumes > 0:
            one["allocatable"] = {"count": driver.info.max_volumes}
        listed.append(one)
    return {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": metadata, "spec": {"drivers": listed}}


def node_metadata(metadata: Object, drivers: Mapping[str, CsiDriver]) -> Object | None:
    """Return the node's metadata with what its drivers say of it, or None if that is in it already."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        before = json.loads(annotations.get(ANNOTATION, "{}").encode())
    except ValueError:
        before = {}
    ids = {**(before if isinstance(before, dict) else {}), **{name: one.info.node_id for name, one in drivers.items()}}
    topology = {key: value for one in drivers.values() for key, value in one.info.topology.items()}
    wanted = {"labels": {**labels, **topology}, "annotations": {**annotations, ANNOTATION: json.dumps(ids).decode()}}
    if ids == before and wanted["labels"] == labels:
        return None
    return metadata | wanted
