"""Our edge, edged included, on clouds of KubeEdge v1.12.7 and v1.23.1, over TLS; see `go_cloud`. The containers are pretended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from go_cloud import V1_12, VERSIONS, GoCloud, Version
from link_site import Site, SiteMaker, pod_object, running

from edgesite.context import Section
from edgesite.edge.edged.module import Edged
from edgesite.edge.edgehub.module import EdgeHub
from edgesite.edge.metamanager.module import MetaManager
from edgesite.net import pem
from edgesite.net.real import RealNet
from edgesite.runtime.role import RoleHost
from edgesite.testing.fakeengine import FakeEngine
from edgesite.testing.fakeruntime import FakeRuntime
from edgesite.testing.rolerig import GivenHooks
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio

every_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
NODE, LEASE = "default/node/edge-1", "kube-node-lease/lease/edge-1"


@dataclass
class Stand:
    site: Site
    cloud: GoCloud
    engine: FakeEngine

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[None]:
        values = self.site.edge_values("edge-1")
        values["modules"]["edged"] = {**values["modules"]["edged"], "runtime": "cri", "nodeIP": "192.0.2.7"}
        world = replace(self.site.world, net=RealNet(), hooks=GivenHooks(lambda ctx: FakeRuntime(self.engine)))
        modules, folder = [MetaManager, EdgeHub, Edged], self.site.folder / "edge-1"
        host = RoleHost("edge", modules, Section(values), world, data_dir=folder, node_name="edge-1")
        async with running(host):
            yield

    @property
    def left_alone(self) -> set[tuple[str, str]]:
        """What was sent in vain. v1.12.7 leaves events alone, and nobody waits for an answer to one."""
        told = {(operation, path.split("/")[1]) for operation, path in self.cloud.strange}
        return told - ({("insert", "event"), ("update", "event")} if self.cloud.version is V1_12 else set())

    def pod(self, name: str) -> dict[str, Any]:
        return self.cloud.objects[f"default/pod/{name}"]

    def conditions(self, path: str) -> dict[str, str]:
        status = self.cloud.objects.get(path, {}).get("status") or {}
        return {one["type"]: one["status"] for one in status.get("conditions") or ()}


@asynccontextmanager
async def stand(make_site: SiteMaker, version: Version) -> AsyncIterator[Stand]:
    async with make_site(single_process=False) as site:
        engine = FakeEngine(site.world.clock, images=["app", "kubeedge/pause:3.1"])
        async with GoCloud(site, version).serving() as cloud:
            site.token = cloud.token
            yield Stand(site, cloud, engine)


def go_pod(name: str, **spec: Any) -> dict[str, Any]:
    pod = pod_object(name, **spec)
    pod["spec"] |= {"enableServiceLinks": False, "terminationGracePeriodSeconds": 1}
    return pod


@every_version
async def test_from_join_to_the_end_of_a_pod(make_site: SiteMaker, version: Version) -> None:
    async with stand(make_site, version) as at, at.edge():
        cloud = at.cloud
        await until(lambda: at.conditions(NODE).get("Ready") == "True" and LEASE in cloud.objects)
        node = cloud.objects[NODE]
        assert node["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""
        assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10350}}
        assert cloud.objects[LEASE]["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]

        cloud.put("default/configmap/cfg", {"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1"}})
        cloud.put("default/secret/sec", {"kind": "Secret", "apiVersion": "v1", "data": {"p": "b25l"}})
        env = [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "p"}}}]
        containers = [{"name": "app", "image": "app", "env": env}]
        volumes = [{"name": "c", "configMap": {"name": "cfg"}}]
        cloud.put("default/pod/web-0", go_pod("web-0", containers=containers, volumes=volumes))
        await until(lambda: at.conditions("default/pod/web-0").get("Ready") == "True")
        assert at.pod("web-0")["status"]["phase"] == "Running"
        [container] = at.engine.containers.values()
        assert dict(container.config.envs)["P"] == "one"

        cloud.put("default/configmap/cfg", {"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "2"}})
        cloud.put(
            "default/pod/web-0", {**at.pod("web-0"), "metadata": {**at.pod("web-0")["metadata"], "labels": {"x": "y"}}}
        )
        uid = at.pod("web-0")["metadata"]["uid"]
        cloud.delete("default/pod/web-0")
        await until(lambda: "default/pod/web-0" not in cloud.objects)
        await until(lambda: uid not in cloud.synced)
        assert [one for one in at.engine.containers.values() if one.state.name == "RUNNING"] == []
        assert at.left_alone == set()


@every_version
async def test_what_changed_during_a_cut(make_site: SiteMaker, version: Version) -> None:
    async with stand(make_site, version) as at:
        cloud = at.cloud
        async with at.edge():
            await until(lambda: at.conditions(NODE).get("Ready") == "True")
            for name in ("keep", "gone", "forced"):
                cloud.put(f"default/pod/{name}", go_pod(name))
            for name in ("keep", "gone", "forced"):
                await until(lambda name=name: at.conditions(f"default/pod/{name}").get("Ready") == "True")
        cloud.put("default/pod/fresh", go_pod("fresh"))
        keep = at.pod("keep")
        cloud.put("default/pod/keep", {**keep, "metadata": {**keep["metadata"], "annotations": {"note": "offline"}}})
        cloud.delete("default/pod/gone")
        cloud.delete("default/pod/forced", force=True)
        started = {one.id for one in at.engine.containers.values()}
        async with at.edge():
            await until(lambda: at.conditions("default/pod/fresh").get("Ready") == "True")
            await until(lambda: "default/pod/gone" not in cloud.objects)
            await until(
                lambda: (
                    len(
                        {
                            one.sandbox.config.name
                            for one in at.engine.containers.values()
                            if one.state.name == "RUNNING"
                        }
                    )
                    == 2
                )
            )
            names = {one.sandbox.config.name for one in at.engine.containers.values() if one.state.name == "RUNNING"}
            assert names == {"keep", "fresh"}
            kept = [one for one in at.engine.containers.values() if one.sandbox.config.name == "keep"]
            assert {one.id for one in kept} <= started, "a pod that goes on is not started again"
            cloud.cut()
            await until(lambda: len(cloud.handshakes) == 3)
        assert at.left_alone == set()


@every_version
async def test_the_certificate_is_renewed_and_the_link_made_anew(make_site: SiteMaker, version: Version) -> None:
    async with stand(make_site, version) as at:
        certificate = at.site.folder / "edge-1/pki/node.crt"
        async with at.edge():
            await until(lambda: at.cloud.keepalives)
        first = certificate.read_bytes()
        facts = pem.facts(first)
        at.site.token = ""
        clock = at.site.world.clock

        class Later:
            """A clock near the end of the certificate's life."""

            def time(self) -> float:
                return facts.not_after - 86400.0

            def __getattr__(self, name: str) -> Any:
                return getattr(clock, name)

        at.site.world = replace(at.site.world, clock=Later())  # type: ignore[arg-type]
        async with at.edge():
            await until(lambda: certificate.read_bytes() != first)
            await until(lambda: len(at.cloud.handshakes) >= 2)


async def test_a_question_that_v1_12_leaves_unanswered_holds_up_its_own_pod_alone(make_site: SiteMaker) -> None:
    async with stand(make_site, V1_12) as at, at.edge():
        await until(lambda: at.conditions(NODE).get("Ready") == "True")
        volumes = [{"name": "c", "configMap": {"name": "none"}}]
        at.cloud.put("default/pod/waits", go_pod("waits", volumes=volumes))
        await until(lambda: any(one["route"]["resource"] == "default/configmap/none" for one in at.cloud.requests))
        at.cloud.put("default/pod/runs", go_pod("runs"))
        with anyio.fail_after(8):  # of the 10 s that the question may take
            await until(lambda: at.conditions("default/pod/runs").get("Ready") == "True")
        assert at.conditions("default/pod/waits").get("Ready") != "True"
