"""All controllers under faults drawn from a seed: whatever happens on the way, the end is the same."""

import random

import anyio
import pytest
from test_nodelifecycle import renew
from test_workloads import Kubelet, deployment, template

from edgesite.client import SharedInformers
from edgesite.context import Section, Settings
from edgesite.controlplane import plugin
from edgesite.kube.errors import ApiError, internal, unavailable
from edgesite.kube.resources import DEPLOYMENTS, LEASES, NODES, PODS, SERVICES

pytestmark = pytest.mark.anyio
MODULES = [
    kind
    for kind in plugin.edgesite_modules(Settings(api=Section({"enable": True}), cloud=Section({})))
    # the world has the caches; who signs tokens is the API server, which is not here
    if kind.name not in ("informers", "serviceaccount-token")
]


class Trouble:
    """Breaks the API again and again."""

    def __init__(self, world, seed):
        self.world, self.random = world, random.Random(seed)

    async def run(self):
        api, draw = self.world.api, self.random
        for _ in range(60):
            await anyio.sleep(draw.expovariate(2))
            kind = draw.randrange(5)
            if kind == 0:
                api.drop_watches(draw.choice([None, ConnectionResetError("cut")]))
            elif kind == 1:
                api.compact()
                api.drop_watches()
            elif kind == 2:
                only = draw.choice(["POST", "PUT", "PATCH", "DELETE", "GET"])
                api.fail(draw.choice([internal("no"), unavailable("busy"), ConnectionResetError("cut")]), only=only)
            elif kind == 3:
                pods = sorted(self.world.all("pods"))
                if pods:
                    name = draw.choice(pods)
                    key = next(path for path in api.objects if path.endswith(f"/pods/{name}"))
                    api._delete(key, {})
            else:
                await self.user()

    async def user(self):
        """What users do, who try again until it works."""
        draw = self.random
        change = draw.choice(
            [
                {"spec": {"replicas": draw.randint(0, 5)}},
                {"spec": {"template": template(draw.choice(["v1", "v2", "broken"]))}},
            ]
        )
        await insist(lambda: self.world.client.patch(DEPLOYMENTS, "web", change, "d"))


async def insist(call):
    while True:
        try:
            return await call()
        except ApiError:
            await anyio.sleep(0.1)


async def put_node(world, name):
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    status = {"allocatable": allocatable, "conditions": [ready]}
    await world.client.create(
        NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": status}
    )
    lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}}
    await world.client.create(LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})


class Survivor(Kubelet):
    """A kubelet that tries again, gives addresses, and looks at all pods after a while."""

    async def run(self):
        while True:
            with anyio.move_on_after(20):
                await super().run()

    async def start(self, pod):
        if pod["spec"].get("nodeName") is None:
            informers = self.world.services.get(SharedInformers)
            for _ in range(100):
                await anyio.sleep(1)
                pod = informers.of(PODS).get(pod["metadata"]["name"], "d") or pod
                if pod["spec"].get("nodeName"):
                    break
        if pod["spec"]["containers"][0]["image"] == "broken" or (pod.get("status") or {}).get("podIP"):
            return
        address = {"status": {"podIP": f"10.0.0.{self.world.api.revision % 250 + 1}", "phase": "Running"}}
        address["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        name = pod["metadata"]["name"]
        try:
            await self.world.client.patch(PODS, name, address, "d", subresource="status")
        except ApiError:
            return


@pytest.mark.parametrize("seed", range(8))
async def test_the_end_is_what_was_asked_for(world, seed):
    await put_node(world, "n1")
    await put_node(world, "n2")
    async with world.running(*MODULES), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: insist_for_ever(renew, world, "n1", "n2"))
        tasks.start_soon(Survivor(world).run)
        await insist(lambda: world.client.create(DEPLOYMENTS, deployment(3)))
        service = {
            "metadata": {"name": "web", "namespace": "d"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }
        await insist(lambda: world.client.create(SERVICES, {"apiVersion": "v1", "kind": "Service", **service}))
        await Trouble(world, seed).run()
        world.api._failures.clear()
        await insist(
            lambda: world.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4, "template": template("v9")}}, "d")
        )
        await anyio.sleep(300)
        pods = world.all("pods").values()
        assert [pod["spec"]["containers"][0]["image"] for pod in pods] == ["v9"] * 4
        assert {pod["spec"]["nodeName"] for pod in pods} <= {"n1", "n2"}
        status = world.all("deployments")["web"]["status"]
        assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (4, 4, 4)
        addresses = sorted(pod["status"]["podIP"] for pod in pods)
        [subset] = world.all("endpoints")["web"]["subsets"]
        assert sorted(one["ip"] for one in subset["addresses"]) == addresses
        held = [one["addresses"][0] for each in world.all("endpointslices").values() for one in each["endpoints"]]
        assert sorted(held) == addresses
        writes = [one for one in world.api.writes if "leases" not in one[1]]
        await anyio.sleep(900)
        assert [one for one in world.api.writes if "leases" not in one[1]] == writes
        tasks.cancel_scope.cancel()


async def insist_for_ever(run, *args):
    while True:
        try:
            await run(*args)
        except ApiError:
            await anyio.sleep(1)
