"""Events are forgotten in time, and the oldest ones when there are too many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from apiserver_site import Site

from edgesite.apiserver import events
from edgesite.apiserver.events import EventSweeper

pytestmark = pytest.mark.anyio
EVENTS = "/api/v1/namespaces/default/events"


def event(name: str, **more: Any) -> dict[str, Any]:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    return {"metadata": {"name": name}, "involvedObject": about, "reason": "R", "message": "m", **more}


@asynccontextmanager
async def sweeping(site: Site, ttl_s: float) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(EventSweeper(site.store, site.clock, ttl_s).run)
        yield
        tasks.cancel_scope.cancel()


async def names(site: Site) -> list[str]:
    return [one["metadata"]["name"] for one in (await site.get(EVENTS)).obj["items"]]


async def until_there_are(site: Site, wanted: list[str]) -> None:
    with anyio.fail_after(60):
        while await names(site) != wanted:
            await anyio.lowlevel.checkpoint()


async def test_old_events_go(site: Site) -> None:
    await site.post(EVENTS, event("old", lastTimestamp="2026-01-01T00:00:00Z"))
    await site.post(EVENTS, event("new"))
    async with sweeping(site, 3600):
        await until_there_are(site, ["new"])


async def test_events_go_in_time(site: Site) -> None:
    async with sweeping(site, 0.2):
        await site.post(EVENTS, event("a"))
        async with site.watch(f"{EVENTS}?watch=true") as following:
            kind, _ = await following()
            while kind != "DELETED":
                kind, _ = await following()
        assert await names(site) == []


async def test_the_oldest_go_when_there_are_too_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 2)
    for number in range(5):
        await site.post(EVENTS, event(f"e{number}", lastTimestamp=f"2026-01-01T00:00:0{number}Z"))
    async with sweeping(site, 1e9):
        await until_there_are(site, ["e3", "e4"])


async def test_events_of_either_api_are_found_by_who_reports(site: Site) -> None:
    new = {
        "kind": "Event",
        "apiVersion": "events.k8s.io/v1",
        "metadata": {"name": "new"},
        "reason": "R",
        "type": "Normal",
    }
    new |= {"eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do", "reportingInstance": "i", "note": "n"}
    regarding = {"kind": "Pod", "name": "p", "namespace": "default"}
    made = await site.post(
        "/apis/events.k8s.io/v1/namespaces/default/events", {**new, "reportingController": "c", "regarding": regarding}
    )
    assert made.status == 201, made.body
    await site.post(EVENTS, event("old", source={"component": "c"}))
    await site.post(EVENTS, event("other", source={"component": "d"}, reportingComponent="c"))
    found = (await site.get(f"{EVENTS}?fieldSelector=source%3Dc")).obj["items"]
    assert [one["metadata"]["name"] for one in found] == ["new", "old"]
