"""Upgrades and images pulled ahead: jobs in the API, tasks on the wire as recorded, answers in the jobs' status."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import anyio
import pytest
from go_edge import VERSIONS, GoEdge
from link_site import Site, SiteMaker, node_object
from test_link_tls import read_token

from edgesite.client import Client
from edgesite.cloud.taskmanager.module import TaskManager
from edgesite.context import Context, Section
from edgesite.edge.edged.imagestore import ImageStore
from edgesite.edge.taskmanager.module import EdgeTasks
from edgesite.kube.resources import IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS, NODES, SECRETS, Resource
from edgesite.net import tls
from edgesite.net.client import HttpClient
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

LABEL = "nodeupgradejob.operations.kubeedge.io/status"
READY = [{"type": "Ready", "status": "True"}]


class Runtime:
    """Stands where edged is: has images by their names."""

    name: ClassVar[str] = "runtime"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = ""

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        ctx.services.provide(ImageStore, self)  # type: ignore[type-abstract]
        ctx.ready()
        await anyio.sleep_forever()

    async def pull(self, image: str, secret: str = "") -> str:
        return "" if "good" in image else f"no such image: {image}"


def job(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "operations.kubeedge.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def prepull(*images: str, **template: Any) -> dict[str, Any]:
    return job("ImagePrePullJob", "pre-1", imagePrePullTemplate={"images": list(images), **template})


async def status_of(client: Client, kind: Resource, name: str, *states: str) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        while True:
            status: dict[str, Any] = (await client.get(kind, name)).get("status") or {}
            if status.get("state") in states:
                return status
            await anyio.sleep(0.01)


def wanted(site: Site) -> None:
    site.values["cloud"]["modules"]["taskManager"] = {"enable": True}


async def task(edge: GoEdge, group: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        return next((one for one in edge.heard if one["route"]["group"] == group), None)

    found: dict[str, Any] = await until(find)
    edge.heard.remove(found)
    return found


async def test_an_upgrade_of_v1_12_from_message_to_report(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site:
        wanted(site)
        async with site.cloud(TaskManager) as client:
            edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()
                await client.create(NODES, node_object("other"))  # no edge node: not touched
                spec = {
                    "version": "v1.12.8",
                    "upgradeTool": "keadm",
                    "image": "example.com:5000/pack:old",
                    "nodeNames": ["go-1", "other"],
                }
                await client.create(NODE_UPGRADE_JOBS, job("NodeUpgradeJob", "up-1", **spec))
                told = await task(edge, "nodeupgradejobcontroller")
                assert told["route"] == {
                    "source": "nodeupgradejobcontroller",
                    "group": "nodeupgradejobcontroller",
                    "operation": "upgrade",
                    "resource": "upgrade/up-1/node/go-1",
                }
                content = told["content"]
                expected = {
                    "UpgradeID": "up-1",
                    "Version": "v1.12.8",
                    "UpgradeTool": "keadm",
                    "Image": "example.com:5000/pack:v1.12.8",
                }
                assert content == {**expected, "HistoryID": content["HistoryID"]}
                status = await status_of(client, NODE_UPGRADE_JOBS, "up-1", "upgrading")
                assert [one["nodeName"] for one in status["status"]] == ["go-1"]
                node = await client.get(NODES, "go-1")
                assert (node["spec"].get("unschedulable"), node["metadata"]["labels"][LABEL]) == (True, "")
                report = {"UpgradeID": "up-1", "HistoryID": "another", "NodeName": "go-1", "Status": "upgrade_success"}
                report |= {"FromVersion": "v1.12.7", "ToVersion": "v1.12.8", "Reason": ""}
                await post(edge, report)
                await post(edge, {**report, "HistoryID": content["HistoryID"]})
                status = await status_of(client, NODE_UPGRADE_JOBS, "up-1", "completed")
                history = status["status"][0]["history"]
                assert (history["result"], history["historyID"]) == ("upgrade_success", content["HistoryID"])
                node = await client.get(NODES, "go-1")
                assert not node["spec"].get("unschedulable")
                assert LABEL not in node["metadata"]["labels"]
                annotation = "nodeupgradejob.operations.kubeedge.io/history"
                assert node["metadata"]["annotations"][annotation] == "v1.12.7->v1.12.8"


async def post(edge: GoEdge, report: dict[str, Any]) -> None:
    assert edge.pair is not None
    context = tls.client_context(verify=False, certificate=edge.pair.certificate, key=edge.pair.key)
    async with HttpClient(edge.site.world.net, f"127.0.0.1:{edge.site.bootstrap_port}", tls=context) as client:
        answer = await client.request("POST", "/nodeupgrade", {}, json.dumps(report).encode())
        assert (answer.status, answer.body) == (200, b"ok")


async def test_tasks_of_v1_23_go_and_are_answered_as_recorded(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site:
        wanted(site)
        async with site.cloud(TaskManager) as client:
            edge = GoEdge(site, "go-1", VERSIONS["v1.23.1"])
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()
                for name in ("pull", "other"):
                    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}}
                    await client.create(SECRETS, secret)
                before = (await edge.call("query", "default/secret/pull"))["content"]
                assert before["ErrStatus"]["reason"] == "Forbidden"
                made = prepull("good:1", "bad:1", nodeNames=["go-1"], checkItems=["disk"], imageSecrets="default/pull")
                await client.create(IMAGE_PRE_PULL_JOBS, made)
                told = await task(edge, "taskmanager")
                path = "operations.kubeedge.io/v1alpha2/imageprepulljob/pre-1/node/go-1"
                assert told["route"] == {
                    "source": "taskmanager",
                    "group": "taskmanager",
                    "operation": "Check",
                    "resource": path,
                }
                assert told["content"] == made["spec"]
                row = {
                    "action": "Check",
                    "succ": True,
                    "finishTime": "2026-11-20T05:44:40Z",
                    "reason": "",
                    "extend": "",
                }
                await edge._send("websocket", "hub", "UpdateNodeActionStatus", path, row)
                await status_of(client, IMAGE_PRE_PULL_JOBS, "pre-1", "Pulling")
                given = (await edge.call("query", "default/secret/pull"))["content"]
                assert given["metadata"]["name"] == "pull", "the task pulls with it"
                unasked = (await edge.call("query", "default/secret/other"))["content"]
                assert unasked["ErrStatus"]["reason"] == "Forbidden"
                images = [
                    {"image": "good:1", "status": "True"},
                    {"image": "bad:1", "status": "False", "reason": "gone"},
                ]
                row |= {
                    "action": "Pull",
                    "succ": False,
                    "reason": "there were some failures",
                    "extend": json.dumps(images),
                }
                other = path.replace("/go-1", "/other")  # the connection says whose it is, not the path
                await edge._send("websocket", "hub", "UpdateNodeActionStatus", other, row)
                status = await status_of(client, IMAGE_PRE_PULL_JOBS, "pre-1", "Failed")
                [entry] = status["status"]
                assert (entry["nodeStatus"]["nodeName"], entry["nodeStatus"]["reason"]) == (
                    "go-1",
                    "there were some failures",
                )
                assert [(one["image"], one["state"]) for one in entry["imageStatus"]] == [
                    ("good:1", "Successful"),
                    ("bad:1", "Failed"),
                ]
                upgrade = job("NodeUpgradeJob", "up-1", version="v1.23.2", nodeNames=["go-1"], checkItems=["cpu"])
                await client.create(NODE_UPGRADE_JOBS, upgrade)
                told = await task(edge, "taskmanager")
                assert told["route"]["resource"] == "operations.kubeedge.io/v1alpha2/nodeupgradejob/up-1/node/go-1"
                after = (await edge.call("query", "default/secret/pull"))["content"]
                assert after["ErrStatus"]["reason"] == "Forbidden", "the task is over"
                row |= {"action": "Check", "reason": "failed to pull image", "extend": ""}
                await edge._send("websocket", "hub", "UpdateNodeActionStatus", told["route"]["resource"], row)
                status = await status_of(client, NODE_UPGRADE_JOBS, "up-1", "completed")
                assert status["status"][0]["history"]["result"] == "upgrade_failed_rollback_success"
                assert not (await client.get(NODES, "go-1"))["spec"].get("unschedulable")


async def test_our_edge_pulls_and_declines_upgrades(make_site: SiteMaker) -> None:
    async with make_site() as site:
        wanted(site)
        async with site.cloud(TaskManager) as client, site.edge("edge-1", Runtime, EdgeTasks) as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            node = node_object("edge-1")
            node["metadata"]["labels"] = {"node-role.kubernetes.io/edge": "", "zone": "a"}
            await client.create(NODES, node)
            await client.patch(NODES, "edge-1", {"status": {"conditions": READY}}, subresource="status")
            await client.create(IMAGE_PRE_PULL_JOBS, prepull("good:1", labelSelector={"matchLabels": {"zone": "a"}}))
            status = await status_of(client, IMAGE_PRE_PULL_JOBS, "pre-1", "Successful", "Failed")
            assert (status["state"], status["status"][0]["imageStatus"]) == (
                "Successful",
                [{"image": "good:1", "state": "Successful"}],
            )
            await client.delete(IMAGE_PRE_PULL_JOBS, "pre-1")
            await client.create(IMAGE_PRE_PULL_JOBS, prepull("good:1", "bad:1", nodeNames=["edge-1"]))
            status = await status_of(client, IMAGE_PRE_PULL_JOBS, "pre-1", "Successful", "Failed")
            assert status["status"][0]["imageStatus"][1] == {
                "image": "bad:1",
                "state": "Failed",
                "reason": "no such image: bad:1",
            }
            await client.create(
                NODE_UPGRADE_JOBS, job("NodeUpgradeJob", "up-1", version="v9.9.9", nodeNames=["edge-1"])
            )
            status = await status_of(client, NODE_UPGRADE_JOBS, "up-1", "completed")
            assert "packages of its system" in status["status"][0]["history"]["reason"]
            await client.create(
                NODE_UPGRADE_JOBS, job("NodeUpgradeJob", "evil", version="v1.2.3;reboot", nodeNames=["edge-1"])
            )
            await client.create(
                NODE_UPGRADE_JOBS, job("NodeUpgradeJob", "up-2", version="v9.9.9", nodeNames=["edge-1"])
            )
            await status_of(client, NODE_UPGRADE_JOBS, "up-2", "completed")
            assert not (await client.get(NODE_UPGRADE_JOBS, "evil")).get("status")


async def test_an_upgrade_leaves_an_administrators_cordon(make_site: SiteMaker) -> None:
    async with make_site() as site:
        wanted(site)
        async with site.cloud(TaskManager) as client, site.edge("edge-1", Runtime, EdgeTasks) as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            node = node_object("edge-1")
            node["metadata"]["labels"] = {"node-role.kubernetes.io/edge": ""}
            node["spec"] = {"unschedulable": True}
            await client.create(NODES, node)
            await client.patch(NODES, "edge-1", {"status": {"conditions": READY}}, subresource="status")
            await client.create(
                NODE_UPGRADE_JOBS, job("NodeUpgradeJob", "up-1", version="v9.9.9", nodeNames=["edge-1"])
            )
            await status_of(client, NODE_UPGRADE_JOBS, "up-1", "completed")
            with anyio.fail_after(DEADLINE_S):
                while LABEL in (await client.get(NODES, "edge-1"))["metadata"]["labels"]:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert (await client.get(NODES, "edge-1"))["spec"].get("unschedulable") is True


async def test_a_node_is_let_go_of_whatever_is_cut_off(make_site: SiteMaker) -> None:
    """By a restart after which the job is gone, and by the end of the job itself."""
    async with make_site(single_process=False) as site:
        wanted(site)
        async with site.cloud(TaskManager) as client:
            edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()
                cordoned = "edgesite.kubeedge.io/cordoned-for-upgrade"
                marks = {"edgesite.kubeedge.io/upgrade-job": "up-1", cordoned: "ours"}
                marked = {"metadata": {"labels": {LABEL: ""}, "annotations": marks}, "spec": {"unschedulable": True}}
                await client.patch(NODES, "go-1", marked)

                async def is_free() -> bool:
                    node = await client.get(NODES, "go-1")
                    annotations = node["metadata"].get("annotations") or {}
                    left = {LABEL} & node["metadata"]["labels"].keys() or marks.keys() & annotations.keys()
                    return not left and not node["spec"].get("unschedulable")

                await until(is_free)  # there is no such job
                upgrade = job("NodeUpgradeJob", "up-2", version="v1.12.8", nodeNames=["go-1"])
                await client.create(NODE_UPGRADE_JOBS, upgrade)
                await task(edge, "nodeupgradejobcontroller")
                assert not await is_free()
                await client.delete(NODE_UPGRADE_JOBS, "up-2")
                await until(is_free)


async def test_an_upgrade_that_was_cut_off_goes_on(make_site: SiteMaker) -> None:
    """The node was marked, and the job's status not written, when the cloud ended: the node is told."""
    async with make_site(single_process=False) as site:
        wanted(site)
        async with site.cloud(TaskManager) as client:
            edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()
                marks = {
                    "edgesite.kubeedge.io/upgrade-job": "up-1",
                    "edgesite.kubeedge.io/cordoned-for-upgrade": "ours",
                }
                upgrade = job("NodeUpgradeJob", "up-1", version="v1.12.8", nodeNames=["go-1"])
                not_ready = [{"type": "Ready", "status": "False"}]
                await client.patch(NODES, "go-1", {"status": {"conditions": not_ready}}, subresource="status")
                await client.create(NODE_UPGRADE_JOBS, upgrade)
                marked = {"metadata": {"labels": {LABEL: ""}, "annotations": marks}, "spec": {"unschedulable": True}}
                await client.patch(NODES, "go-1", marked)
                await client.patch(NODES, "go-1", {"status": {"conditions": READY}}, subresource="status")
                await client.patch(NODE_UPGRADE_JOBS, "up-1", {"metadata": {"labels": {"look": "again"}}}, kind="merge")
                told = (await task(edge, "nodeupgradejobcontroller"))["content"]
                report = {"UpgradeID": "up-1", "HistoryID": told["HistoryID"], "NodeName": "go-1", "Reason": ""}
                await post(edge, {**report, "FromVersion": "", "ToVersion": "v1.12.8", "Status": "upgrade_success"})
                await status_of(client, NODE_UPGRADE_JOBS, "up-1", "completed")
                node = await client.get(NODES, "go-1")
                assert not node["spec"].get("unschedulable")
                assert not marks.keys() & node["metadata"]["annotations"].keys()
