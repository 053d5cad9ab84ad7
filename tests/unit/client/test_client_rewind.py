"""An API that was restored from a backup: what it tells is taken, though it is older than what was seen."""

from __future__ import annotations

import copy
import logging

import anyio
import pytest

from edgesite.client import Client, SharedInformers
from edgesite.kube.resources import CONFIG_MAPS
from edgesite.testing.fakeapi import FakeApi
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


def thing(name: str, word: str = "") -> dict[str, object]:
    metadata = {"name": name, "namespace": "d"}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"word": word}}


@pytest.mark.parametrize("error", [None, ConnectionResetError("cut")], ids=["ended", "cut"])
async def test_a_watch_that_broke_finds_out_that_the_api_has_gone_back(
    client: Client, informers: SharedInformers, api: FakeApi, caplog: pytest.LogCaptureFixture, error: Exception | None
) -> None:
    for name in ("kept", "changed", "deleted"):
        await client.create(CONFIG_MAPS, thing(name, "early"))
    informer = informers.of(CONFIG_MAPS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        backup, revision = copy.deepcopy(api.objects), api.revision
        await client.patch(CONFIG_MAPS, "changed", {"data": {"word": "late"}}, "d")
        await client.delete(CONFIG_MAPS, "deleted", "d")
        for number in range(50):
            await client.create(CONFIG_MAPS, thing(f"new-{number}"))
        await settle()
        assert len(informer) == 52
        api.objects, api.revision = backup, revision
        api._history.clear()
        api.drop_watches(error)
        with caplog.at_level(logging.WARNING):
            await anyio.sleep(10)
        assert {obj["metadata"]["name"]: obj["data"]["word"] for obj in informer.list()} == dict.fromkeys(
            ("kept", "changed", "deleted"), "early"
        )
        assert caplog.text.count("restored from a backup, perhaps") == 1
        await client.patch(CONFIG_MAPS, "kept", {"data": {"word": "again"}}, "d")
        await anyio.sleep(5)
        found = informer.get("kept", "d")
        assert found is not None
        assert found["data"] == {"word": "again"}
        tasks.cancel_scope.cancel()
