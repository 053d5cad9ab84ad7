"""Whoever holds a service of another module is told when it is another one."""

from __future__ import annotations

import anyio
import pytest

from edgesite.runtime.services import LocalServices, ModuleServices

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_holder_waits_as_long_as_the_service_is_the_same() -> None:
    shared = LocalServices()
    provider, holder = ModuleServices(shared), ModuleServices(shared)
    told: list[str] = []

    async def wait(name: str, implementation: str | None) -> None:
        await holder.replaced(str, implementation)
        told.append(name)

    provider.provide(str, "first")
    async with anyio.create_task_group() as tasks:
        for name in ("one", "other"):
            tasks.start_soon(wait, name, "first")
        tasks.start_soon(wait, "late", "older")
        await anyio.wait_all_tasks_blocked()
        assert told == ["late"], "what it held is gone already"
        provider.provide(int, 1)
        provider.withdraw(int)
        await anyio.wait_all_tasks_blocked()
        assert told == ["late"]
        provider.withdraw_all()
        await anyio.wait_all_tasks_blocked()
        assert told == ["late", "one", "other"]
        tasks.start_soon(wait, "next", None)
        await anyio.wait_all_tasks_blocked()
        provider.provide(str, "second")
    assert told == ["late", "one", "other", "next"]
