"""Edges of KubeEdge on a cloud that was restored from a backup: they tell no versions, but their requests give it away."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from go_edge import GoEdge, Version
from link_site import SiteMaker, config_map, create_account, pod_object
from test_link_go_edge import every_version
from test_link_tls import read_token

from edgesite.client import Client
from edgesite.kube.resources import CONFIG_MAPS, PODS
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio

KEPT, CHANGED, DELETED, REPLACED, NEW = (
    f"default/pod/{name}" for name in ["kept", "changed", "deleted", "replaced", "new"]
)


async def make(client: Client, edge: GoEdge, *keys: str) -> None:
    for key in keys:
        refs = [{"name": "c", "configMap": {"name": "cfg"}}]
        await client.create(PODS, pod_object(key.rpartition("/")[2], "go-1", volumes=refs))
        await edge.run_pod(key, "configmap/cfg")


async def go_on(client: Client, edge: GoEdge) -> None:
    """What the backup does not have."""
    await client.patch(CONFIG_MAPS, "cfg", {"data": {"word": "later"}}, "default")
    await client.patch(PODS, "changed", {"metadata": {"labels": {"later": "1"}}}, "default")
    for key in (DELETED, REPLACED):
        await client.delete(PODS, key.rpartition("/")[2], "default", grace_period_s=0)
        await until(lambda key=key: key not in edge.pods)  # type: ignore[misc]
    await make(client, edge, REPLACED, NEW)
    await until(lambda: "later" in (edge.meta[CHANGED]["metadata"].get("labels") or {}))
    await until(lambda: edge.meta["default/configmap/cfg"]["data"]["word"] == "later")
    await edge.renew_lease(20)


@every_version
async def test_it_holds_what_the_backup_has_and_nothing_else(make_site: SiteMaker, version: Version) -> None:
    async with make_site(single_process=False) as site:
        folder, backup = site.folder / "cloud", site.folder / "backup"
        edge = GoEdge(site, "go-1", version)
        async with site.cloud() as client:
            await create_account(client)
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()
                await client.create(CONFIG_MAPS, config_map("cfg", word="early"))
                await make(client, edge, KEPT, CHANGED, DELETED, REPLACED)
                await edge.renew_lease(10)
        shutil.copytree(folder, backup)
        async with site.cloud() as client, edge.linked():
            await go_on(client, edge)
            running = dict(edge.pods)
        shutil.rmtree(folder)
        backup.rename(folder)
        async with site.cloud() as client, edge.linked():
            await edge.renew_lease(30)
            for key in (REPLACED, NEW):  # as edged does from time to time
                await report(edge, running[key])
            pods = {one["metadata"]["name"]: one["metadata"]["uid"] for one in (await client.list(PODS))["items"]}
            assert set(pods) == {"kept", "changed", "deleted", "replaced"}

            def equal() -> bool:
                held = {key.rpartition("/")[2]: pod["metadata"]["uid"] for key, pod in edge.pods.items()}
                return held == pods and running[REPLACED]["metadata"]["uid"] in edge.ended

            await until(equal)
            assert running[NEW]["metadata"]["uid"] in edge.ended
            await until(lambda: "later" not in (edge.meta[CHANGED]["metadata"].get("labels") or {}))
            await until(lambda: edge.meta["default/configmap/cfg"]["data"]["word"] == "early")
            await client.patch(CONFIG_MAPS, "cfg", {"data": {"word": "again"}}, "default")
            await until(lambda: edge.meta["default/configmap/cfg"]["data"]["word"] == "again")


async def report(edge: GoEdge, pod: dict[str, Any]) -> None:
    """The edge reports a status of a pod that the cloud does not know."""
    metadata = pod["metadata"]
    text = json.dumps({"metadata": {"uid": metadata["uid"]}, "status": {"phase": "Running"}})
    answer = await edge.call("patch", f"{metadata['namespace']}/podpatch/{metadata['name']}", text)
    assert answer["content"]["Err"]["ErrStatus"]["code"] in (404, 409)
