"""DeviceStatus objects: whose they are to write, and what is written when."""

from __future__ import annotations

import logging
import random
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from edgesite.client import ObjectKey
from edgesite.cloud.devicecontroller.devicestatuses import DeviceStatuses
from edgesite.cloud.devicecontroller.objects import pack
from edgesite.kube.errors import ApiError, unavailable
from edgesite.net.real import RealClock

Object = dict[str, Any]
KEY = ObjectKey("default", "d")


class Rig:
    """A device, an API, and a connection that comes and goes."""

    def __init__(self) -> None:
        self.devices, self.here, self.stored = self, True, False
        self.written: list[Object] = []
        self.error: ApiError | None = None
        self.state = "online"
        log = logging.getLogger("test")
        self.statuses = DeviceStatuses(self, self, lambda node: self.here, RealClock(), random.Random(1), log)  # type: ignore[arg-type]

    def by_key(self, key: ObjectKey) -> Object:
        metadata = {"name": "d", "namespace": "default", "uid": "u", "resourceVersion": "1"}
        return pack({"metadata": metadata, "spec": {"nodeName": "edge-1"}, "status": {"state": self.state}})

    def add_handler(self, *handlers: Any) -> Any:
        return nullcontext()

    async def patch(self, kind: Any, name: str, patch: Object, namespace: str) -> None:
        if self.error is not None:
            raise self.error
        if not self.stored:
            raise ApiError(404, "NotFound", "there is none")
        self.written.append(patch)

    async def create(self, kind: Any, obj: Object) -> None:
        self.stored = True
        self.written.append(obj)

    def reconcile(self, state: str = "") -> None:
        self.state = state or self.state
        anyio.run(self.statuses._reconcile, KEY)

    @property
    def states(self) -> list[str]:
        return [one["status"]["state"] for one in self.written]


def test_it_is_made_and_changed_but_not_written_again() -> None:
    rig = Rig()
    for state in ("online", "online", "offline", "offline"):
        rig.reconcile(state)
    assert rig.states == ["online", "offline"]
    made, changed = rig.written
    assert "twins" not in made["status"], "an API server would refuse a null"
    assert changed["status"]["twins"] is None, "what is reported no more goes"


def test_a_node_that_comes_back_from_another_instance_is_written_anew() -> None:
    rig = Rig()
    rig.reconcile("online")
    rig.here = False
    rig.reconcile("offline")  # which the other instance wrote
    assert rig.states == ["online"]
    rig.here = True
    rig.reconcile("online")
    assert rig.states == ["online", "online"]


def test_what_fails_is_tried_again_and_a_missing_right_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.error = unavailable("no answer")
    with pytest.raises(ApiError):
        rig.reconcile()
    rig.error = ApiError(403, "Forbidden", "ends", {"causes": [{"reason": "NamespaceTerminating"}]})
    rig.reconcile()
    assert not caplog.messages
    rig.error = ApiError(403, "Forbidden", "no right")
    rig.reconcile("online")
    rig.reconcile("offline")
    assert len(caplog.messages) == 1
    rig.error = None
    rig.reconcile("ok")
    assert rig.states == ["ok"]
