import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.controlplane.endpoints import wanted
from edgesite.controlplane.endpoints.backends import Backend, Port, backends
from edgesite.controlplane.endpoints.module import EndpointSliceModule, EndpointsModule
from edgesite.kube.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES

HTTP = (Port("http", "TCP", 8080),)


def service(**spec):
    spec = {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", **spec}
    spec.setdefault("ports", [{"name": "http", "port": 80, "targetPort": "http"}])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "d", "uid": "svc", "labels": {"tier": "front"}},
        "spec": spec,
    }


def pod(name, ip="10.0.0.1", ready=True, node="n1", labels=None, port=8080, **more):
    container = {"name": "c", "ports": [{"name": "http", "containerPort": port}]}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    meta = {"name": name, "namespace": "d", "uid": name, "labels": labels or {"app": "web"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container], "nodeName": node, **more},
        "status": status,
    }


def leaving(one):
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return one


def found(*pods, of=None, node=None, family="IPv4"):
    return backends(of or service(), pods, family, lambda name: node)


def test_addresses_come_in_order_with_ready_states():
    ready, waiting, going = found(
        pod("b", "10.0.0.10", ready=False), leaving(pod("c", "10.0.0.11")), pod("a", "10.0.0.9")
    )
    assert [one.address for one in (ready, waiting, going)] == ["10.0.0.9", "10.0.0.10", "10.0.0.11"]
    assert [(one.ready, one.serving, one.terminating) for one in (ready, waiting, going)] == [
        (True, True, False),
        (False, False, False),
        (False, True, True),
    ]


def test_pods_without_address_and_ended_pods_are_left_out():
    ended = pod("done")
    ended["status"]["phase"] = "Succeeded"
    assert found(pod("new", ip=None), ended) == []


def test_publishing_the_not_ready_makes_all_ready():
    all_ready = service(publishNotReadyAddresses=True)
    assert [one.ready for one in found(pod("a", ready=False), leaving(pod("b")), of=all_ready)] == [True, True]


def test_named_ports_are_resolved_for_each_pod():
    one, other = found(pod("a", "10.0.0.1"), pod("b", "10.0.0.2", port=9090))
    assert (one.ports[0].port, other.ports[0].port) == (8080, 9090)


def test_families_are_told_apart():
    dual = pod("a")
    dual["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    assert [one.address for one in found(dual, family="IPv6")] == ["fd00::1"]
    assert [one.address for one in found(dual, family="IPv4")] == ["10.0.0.1"]


def test_pods_of_a_node_that_is_silent_do_not_serve():
    silent = {"metadata": {"labels": {}}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert [one.serving for one in found(pod("a"), node=silent)] == [False]


def test_hostnames_show_under_their_own_subdomain_only():
    one, other = found(pod("a", hostname="h", subdomain="web"), pod("b", "10.0.0.2", hostname="h", subdomain="x"))
    assert (one.hostname, other.hostname) == ("h", "")


def test_endpoints_group_by_ports_and_keep_the_not_ready_apart():
    given_pods = found(pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False), pod("c", "10.0.0.3", port=9090))
    one = wanted.endpoints(service(), given_pods)
    assert [(len(each.get("addresses", ())), len(each.get("notReadyAddresses", ()))) for each in one["subsets"]] == [
        (1, 1),
        (1, 0),
    ]
    assert one["subsets"][0]["addresses"][0] == {
        "ip": "10.0.0.1",
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "d", "name": "a", "uid": "a"},
    }


def test_headless_services_without_ports_list_bare_addresses():
    headless = service(clusterIP="None", ports=[])
    one = wanted.endpoints(headless, found(pod("a"), of=headless))
    assert one["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert "ports" not in one["subsets"][0]
    plan = wanted.plan_slices(headless, {"IPv4": found(pod("a"), of=headless)}, [])
    assert len(plan.create[0]["endpoints"]) == 1


def backend(number, ready=True):
    pod_ref = ("d", f"p{number}", f"u{number}")
    return Backend(f"10.0.{number // 250}.{number % 250}", HTTP, ready, ready, False, "n", "", "", pod_ref)


def applied(plan, existing):
    """The slices after a plan, as a server keeps them."""
    names = {one["metadata"]["name"]: one for one in existing}
    for one in plan.delete:
        del names[one["metadata"]["name"]]
    for one in plan.update:
        names[one["metadata"]["name"]] = one
    for number, one in enumerate(plan.create):
        name = f"new-{len(existing)}-{number}-{id(plan)}"
        names[name] = {**one, "metadata": {**one["metadata"], "name": name}}
    return list(names.values())


@given(st.lists(st.sets(st.integers(0, 450), max_size=400), min_size=1, max_size=5))
def test_slices_hold_each_endpoint_once_and_at_most_a_hundred(steps):
    slices = []
    for numbers in steps:
        members = [backend(number) for number in sorted(numbers)]
        slices = applied(wanted.plan_slices(service(), {"IPv4": members}, slices), slices)
        held = [endpoint["targetRef"]["uid"] for one in slices for endpoint in one["endpoints"]]
        assert sorted(held) == sorted(f"u{number}" for number in numbers)
        assert all(len(one["endpoints"]) <= 100 for one in slices)
        assert slices
        again = wanted.plan_slices(service(), {"IPv4": members}, slices)
        assert not again.create
        assert not again.update
        assert not again.delete


def test_one_change_among_many_touches_one_slice():
    members = [backend(number) for number in range(250)]
    slices = applied(wanted.plan_slices(service(), {"IPv4": members}, []), [])
    assert sorted(len(one["endpoints"]) for one in slices) == [50, 100, 100]
    members[120] = backend(120, ready=False)
    plan = wanted.plan_slices(service(), {"IPv4": members}, slices)
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)


def bare(obj):
    obj["metadata"].pop("uid", None)
    return obj


def endpoints_of(world):
    return [
        sorted(address["ip"] for address in subset.get("addresses", ()))
        for subset in world.all("endpoints")["web"].get("subsets") or ()
    ]


def ready_in_slices(world):
    return sorted(
        endpoint["addresses"][0]
        for one in world.all("endpointslices").values()
        for endpoint in one["endpoints"]
        if endpoint["conditions"]["ready"]
    )


@pytest.mark.anyio
async def test_both_follow_pods_services_and_nodes(world):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}}
    await world.client.create(NODES, {**node, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    async with world.running(EndpointsModule, EndpointSliceModule):
        await world.client.create(SERVICES, bare(service()))
        await anyio.sleep(1)
        assert endpoints_of(world) == []
        assert len(world.all("endpointslices")) == 1
        await world.client.create(PODS, bare(pod("a")))
        await world.client.create(PODS, bare(pod("b", "10.0.0.2")))
        await world.client.create(PODS, bare(pod("other", "10.0.0.3", labels={"app": "x"})))
        await anyio.sleep(1)
        assert endpoints_of(world) == [["10.0.0.1", "10.0.0.2"]]
        assert ready_in_slices(world) == ["10.0.0.1", "10.0.0.2"]
        await world.client.patch(PODS, "b", {"metadata": {"labels": {"app": "x"}}}, "d")
        await anyio.sleep(1)
        assert endpoints_of(world) == [["10.0.0.1"]]
        silent = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        await world.client.patch(NODES, "n1", silent, subresource="status")
        await anyio.sleep(1)
        assert endpoints_of(world) == [[]]
        assert ready_in_slices(world) == []
        writes = len(world.api.writes)
        await world.client.patch(PODS, "a", {"metadata": {"annotations": {"x": "y"}}}, "d")
        await anyio.sleep(60)
        assert len(world.api.writes) == writes + 1
        await world.client.delete(SERVICES, "web", "d")
        await anyio.sleep(1)
        assert world.all("endpoints") == {}
        assert world.all("endpointslices") == {}


@pytest.mark.anyio
async def test_services_without_selector_are_left_alone(world):
    async with world.running(EndpointsModule, EndpointSliceModule):
        await world.client.create(SERVICES, bare(service(selector=None)))
        await world.client.create(PODS, bare(pod("a")))
        await anyio.sleep(5)
        assert world.all("endpoints") == {}
        assert world.all("endpointslices") == {}


@pytest.mark.anyio
async def test_endpoints_that_someone_deletes_come_back(world):
    async with world.running(EndpointsModule, EndpointSliceModule):
        await world.client.create(SERVICES, bare(service()))
        await world.client.create(PODS, bare(pod("a")))
        await anyio.sleep(1)
        await world.client.delete(ENDPOINTS, "web", "d")
        [name] = world.all("endpointslices")
        await world.client.delete(ENDPOINT_SLICES, name, "d")
        await anyio.sleep(1)
        assert endpoints_of(world) == [["10.0.0.1"]]
        assert ready_in_slices(world) == ["10.0.0.1"]
