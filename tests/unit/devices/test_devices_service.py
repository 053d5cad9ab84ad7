"""Reports to a DeviceTwin that has had no device yet: refused, or held back while it is loaded for the first."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from edgesite.edge.devicetwin import Reported
from edgesite.edge.devicetwin.reports import Reports
from edgesite.edge.devicetwin.service import DeviceService
from edgesite.edge.metamanager.meta import Meta
from edgesite.kube.errors import ApiError

pytestmark = pytest.mark.anyio
VALUES = [Reported("speed", "40")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Taken:
    """Takes reports as the engine does."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def report_twins(self, namespace: str, name: str, values: Any) -> None:
        self.names.append(name)


def service() -> DeviceService:
    return DeviceService(cast(Meta, None))


async def test_without_devices_reports_are_not_found() -> None:
    idle = service()
    with pytest.raises(ApiError) as caught:
        await idle.report_twins("default", "pump-1", VALUES)
    assert caught.value.code == 404
    assert idle.namespace_of("pump-1") is None
    assert idle.last_online("default", "pump-1") == ""


async def test_reports_wait_for_what_is_being_loaded() -> None:
    loading, taken = service(), Taken()
    loading.expect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loading.report_twins, "default", "pump-1", VALUES)
        await anyio.wait_all_tasks_blocked()
        assert taken.names == []
        loading.attach(cast(Reports, taken))
    assert taken.names == ["pump-1"]
