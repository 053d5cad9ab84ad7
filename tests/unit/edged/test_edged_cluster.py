"""What pods are told of the cluster: services in their environment, and which runtime their class means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_machine import Machine, condition, pod

from edgesite.edge.edged.clusterfacts import FRESH_S, ClusterFacts
from edgesite.edge.edged.environment import Facts, environment
from edgesite.edge.edged.pod import Pod, effective_requests
from edgesite.edge.edged.serviceenv import service_environment
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop

pytestmark = pytest.mark.anyio
API = {
    "name": "kubernetes",
    "namespace": "default",
    "clusterIP": "10.96.0.1",
    "ports": [{"name": "https", "port": 443}],
}
CACHE = {
    "name": "red-is",
    "namespace": "shop",
    "clusterIP": "10.96.7.7",
    "ports": [{"name": "in-put", "port": 6379, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_each_service_has_its_variables_and_those_of_dockers_links() -> None:
    found = service_environment([CACHE], "shop", links=True)
    assert found == {
        "RED_IS_SERVICE_HOST": "10.96.7.7",
        "RED_IS_SERVICE_PORT": "6379",
        "RED_IS_SERVICE_PORT_IN_PUT": "6379",
        "RED_IS_PORT": "tcp://10.96.7.7:6379",
        "RED_IS_PORT_6379_TCP": "tcp://10.96.7.7:6379",
        "RED_IS_PORT_6379_TCP_PROTO": "tcp",
        "RED_IS_PORT_6379_TCP_PORT": "6379",
        "RED_IS_PORT_6379_TCP_ADDR": "10.96.7.7",
        "RED_IS_PORT_53_UDP": "udp://10.96.7.7:53",
        "RED_IS_PORT_53_UDP_PROTO": "udp",
        "RED_IS_PORT_53_UDP_PORT": "53",
        "RED_IS_PORT_53_UDP_ADDR": "10.96.7.7",
    }


def test_the_api_is_always_told_of_and_others_of_the_pods_namespace_where_wanted() -> None:
    headless = {"name": "none", "namespace": "shop", "clusterIP": "None"}
    foreign = {**CACHE, "name": "other", "namespace": "elsewhere"}
    services = [API, CACHE, headless, foreign, {**API, "namespace": "shop", "clusterIP": "10.96.9.9"}]
    told = service_environment(services, "shop", links=False)
    assert {name: told[name] for name in told if name.endswith("_SERVICE_HOST")} == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1"
    }
    linked = service_environment(services, "shop", links=True)
    hosts = {name: value for name, value in linked.items() if name.endswith("_SERVICE_HOST")}
    assert hosts == {"KUBERNETES_SERVICE_HOST": "10.96.9.9", "RED_IS_SERVICE_HOST": "10.96.7.7"}
    v6 = service_environment([{**API, "clusterIP": "fd00::1"}], "shop", links=False)
    assert v6["KUBERNETES_PORT"] == "tcp://[fd00::1]:443"


def test_a_containers_own_variables_come_first_and_may_name_services() -> None:
    container: dict[str, Any] = {
        "name": "main",
        "env": [{"name": "URL", "value": "http://$(A_SERVICE_HOST)"}, {"name": "B", "value": "own"}],
    }
    told = {"A_SERVICE_HOST": "10.0.0.1", "B": "told"}
    found = environment(Pod({"spec": {"containers": [container]}}), container, {}, Facts("n"), told)
    assert list(found.items()) == [("URL", "http://10.0.0.1"), ("B", "own"), ("A_SERVICE_HOST", "10.0.0.1")]


def test_a_pod_takes_its_runtimes_overhead_too() -> None:
    spec = {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}],
        "overhead": {"cpu": "250m", "memory": "120Mi"},
    }
    assert effective_requests(Pod({"spec": spec}), "cpu") == 350 * 10**6
    assert effective_requests(Pod({"spec": spec}), "memory") == (120 << 20) * 10**9


def services(cloud: FakeCloud, *items: dict[str, Any]) -> None:
    cloud.objects["servicelist", "default", "default"] = {"metadata": {"name": "default"}, "items": list(items)}


def made_environment(machine: Machine) -> list[dict[str, str]]:
    return [dict(one.config.envs) for one in machine.engine.containers.values()]


async def test_pods_that_start_find_the_services_that_there_are(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        services(rig.cloud, API)
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert [one["KUBERNETES_SERVICE_HOST"] for one in made_environment(machine)] == ["10.96.0.1"]
        services(rig.cloud, API, {**CACHE, "namespace": "default"})
        await rig.cloud.apply("pod", pod("later"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "later") == "True")
        assert made_environment(machine)[-1]["RED_IS_SERVICE_PORT"] == "6379"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": VirtualLoop})])
async def test_pods_that_start_together_share_an_answer_and_a_later_one_asks_anew() -> None:
    class Objects:
        asked = 0

        async def newest(self, *_: str) -> dict[str, Any]:
            self.asked += 1
            return {"items": [self.asked]}

    clock, objects = VirtualClock(), Objects()
    async with anyio.create_task_group() as tasks:
        facts = ClusterFacts(objects, tasks.start_soon, clock)  # type: ignore[arg-type]
        came = clock.monotonic()
        await clock.sleep(0.1)
        assert [await facts.services("a", came) for _ in range(3)] == [[1]] * 3
        late = clock.monotonic()
        await clock.sleep(0.1)
        assert await facts.services("a", late) == [2], "a service may have been made just before the pod"
        assert await facts.services("a", came) == [2]
        await clock.sleep(FRESH_S + 0.1)
        assert await facts.services("a", came) == [3]
        tasks.cancel_scope.cancel()


async def test_without_a_cloud_the_last_that_was_heard_of_services_serves(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        rig.cloud.cut()
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert not any(name.startswith("KUBERNETES") for name in made_environment(machine)[0])
        services(rig.cloud, API)  # as if it had been stored
        await rig.cloud.apply("pod", pod("later"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "later") == "True")
        assert made_environment(machine)[-1]["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


async def test_a_runtime_class_means_the_handler_that_it_names(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(runtimeClassName="gvisor"))
        await rig.cloud.until(lambda: "FailedCreatePodSandBox" in rig.cloud.reasons())
        (said,) = [one["message"] for one in rig.cloud.events.values() if one["reason"] == "FailedCreatePodSandBox"]
        assert said == 'Failed to create pod sandbox: RuntimeClass.node.k8s.io "gvisor" not found'
        assert not machine.engine.sandboxes
        rig.cloud.objects["runtimeclass", "", "gvisor"] = {"metadata": {"name": "gvisor"}, "handler": "runsc"}
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert [one.config.runtime_handler for one in machine.engine.sandboxes.values()] == ["runsc"]


async def test_a_name_that_the_kernel_does_not_take_is_told(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path, tailoredKubeletConfig={"clusterDomain": "cluster.local"}) as rig:
        long = pod(hostname="h" * 40, subdomain="s" * 20, setHostnameAsFQDN=True)
        await rig.cloud.apply("pod", long)
        await rig.cloud.until(lambda: "FailedCreatePodSandBox" in rig.cloud.reasons())
        assert not machine.engine.sandboxes
