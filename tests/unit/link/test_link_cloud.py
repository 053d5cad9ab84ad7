"""The cloud's parts of the link: tokens, references, records, rules, timers."""

from __future__ import annotations

import math
import random
from typing import Any

import anyio
import pytest

from edgesite.client import SharedInformers
from edgesite.client.client import Client
from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.cloudhub.timers import Timers
from edgesite.cloud.edgecontroller.authorize import Answer, NodeRules
from edgesite.cloud.edgecontroller.downstream import Downstream
from edgesite.cloud.edgecontroller.objects import EdgeObject, EdgeObjects
from edgesite.cloud.edgecontroller.references import claims_of, references_of
from edgesite.cloud.synccontroller.records import Records, from_sync, sync_object
from edgesite.net.real import RealClock
from edgesite.runtime.bus import LocalBus
from edgesite.wire.delivery import ObjectRef
from edgesite.wire.message import MessageMaker
from edgesite.wire.resource import ResourcePath

pytestmark = pytest.mark.anyio

CA = b"example-ca-der"
KEY = bytes(range(32))
TOKEN = (
    "5d8d73ccf9e0dad38e3ef59fa768494a0247c762aaf3e23583b2c4ef9cddd0a5.eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    ".eyJleHAiOjE3MDAwODY0MDB9.MxEQ5dk1coLnaPfc82tfx63C0qBkBAulsdIPXa1oFCc"
)


def test_a_token_is_the_one_that_kubeedge_makes() -> None:
    assert jointoken.make(CA, KEY, 1700086400) == TOKEN
    jointoken.check(TOKEN.split(".", 1)[1], KEY, 1700086399.0)


@pytest.mark.parametrize(
    ("jwt", "key", "now"),
    [
        (TOKEN.split(".", 1)[1], KEY, 1700086400.0),
        (TOKEN.split(".", 1)[1], b"other", 0.0),
        (TOKEN, KEY, 0.0),
        ("", KEY, 0.0),
        ("a.b.c", KEY, 0.0),
        ("é.b.c", KEY, 0.0),
        ("eyJhbGciOiJub25lIn0.eyJleHAiOjE3MDAwODY0MDB9.", KEY, 0.0),
        ("W10.W10.W10", KEY, 0.0),
    ],
)
def test_bad_tokens_are_refused(jwt: str, key: bytes, now: float) -> None:
    with pytest.raises(jointoken.InvalidToken):
        jointoken.check(jwt, key, now)


def test_references_of_all_kinds_of_containers_and_volumes() -> None:
    def env(kind: str, name: str) -> dict[str, Any]:
        return {"valueFrom": {kind: {"name": name}}}

    pod = {
        "metadata": {"name": "p"},
        "spec": {
            "volumes": [
                {"configMap": {"name": "c1"}},
                {"secret": {"secretName": "s1"}},
                {"projected": {"sources": [{"configMap": {"name": "c2"}}, {"secret": {"name": "s2"}}, {}]}},
                {"csi": {"nodePublishSecretRef": {"name": "s3"}}},
                {"persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "tmp", "ephemeral": {}},
                {"emptyDir": {}},
            ],
            "initContainers": [{"env": [env("configMapKeyRef", "c3"), {"name": "x", "value": "y"}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "c4"}}, {"secretRef": {"name": "s4"}}]}],
            "ephemeralContainers": [{"env": [env("secretKeyRef", "s5")]}],
            "imagePullSecrets": [{"name": "s6"}, {}],
        },
    }
    expected = {("configmap", f"c{at}") for at in range(1, 5)} | {("secret", f"s{at}") for at in range(1, 7)}
    assert references_of(pod) == expected
    assert claims_of(pod) == {"claim", "p-tmp"}
    assert references_of({"metadata": {}}) == set()


def ref(uid: str, version: int, namespace: str = "default") -> ObjectRef:
    return ObjectRef(uid, version, "pod", namespace, "web-0", "v1", "Pod")


def test_records_keep_the_newest_version_and_what_is_not_written() -> None:
    records = Records()
    records.delivered("e1", ref("u", 5))
    records.delivered("e1", ref("u", 3))
    assert records.version_at_edge("e1", "u") == 5
    assert list(records.changed) == [("e1", "u")]
    records.removed("e1", "u")
    assert records.version_at_edge("e1", "u") is None
    assert list(records.changed) == [], "what came and went between two writes is never written"
    records.removed("e1", "other")
    assert list(records.changed) == []


def test_what_is_on_its_way_has_a_holder_until_it_arrives_or_the_session_ends() -> None:
    records = Records()
    records.on_its_way("e1", "u1")
    records.on_its_way("e2", "u1")
    assert sorted(records.holders("u1")) == ["e1", "e2"]
    records.delivered("e1", ref("u1", 5))
    records.left("e1")
    records.left("e2")
    assert list(records.holders("u1")) == ["e1"]
    records.on_its_way("e1", "u1")
    records.removed("e1", "u1")
    assert list(records.holders("u1")) == []


def test_what_an_edge_tells_replaces_what_was_recorded() -> None:
    records = Records()
    sync = sync_object("edge.site.1", ref("gone", 1))
    other = sync_object("edge.site.1", ref("kept", 2))
    assert sync is not None
    assert other is not None
    records.load([sync, other])
    assert records.version_at_edge("edge.site.1", "gone") == 1
    records.replace("edge.site.1", [ObjectRef("kept", 2, "pod", "default", "web-0"), ref("new", 9)])
    assert {one.uid: one.version for one in records.of("edge.site.1")} == {"kept": 2, "new": 9}
    assert set(records.changed) == {("edge.site.1", "gone"), ("edge.site.1", "new")}
    assert list(records.holders("kept")) == ["edge.site.1"]
    records.forget_node("edge.site.1")
    assert records.of("edge.site.1") == []


def test_object_syncs_go_back_and_forth() -> None:
    for namespace, kind in (("default", "ObjectSync"), ("", "ClusterObjectSync")):
        one = ref("7c0b6a8e", 4711, namespace)
        sync = sync_object("edge.site.1", one)
        assert sync is not None
        assert (sync["kind"], sync["metadata"]["name"]) == (kind, "edge.site.1.7c0b6a8e")
        assert from_sync(sync) == ("edge.site.1", one)
    assert sync_object("e", ObjectRef("u", 1, "gadget", "", "g")) is None
    assert from_sync({"metadata": {"name": "nodot"}}) is None


async def objects(*pods: dict[str, Any]) -> EdgeObjects:
    """Caches that hold these pods; nothing is asked from any API."""
    informers = SharedInformers(Client(None), RealClock(), random.Random())  # type: ignore[arg-type]
    found = EdgeObjects(informers)
    found.pods.replace(list(pods))
    for informer, _ in found.configs.values():
        informer.replace([])
    return found


def pod(name: str, node: str, uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": "1"},
        "spec": {"nodeName": node, **spec},
    }


async def test_rules_know_a_nodes_own() -> None:
    volumes = [{"secret": {"secretName": "s"}}, {"persistentVolumeClaim": {"claimName": "c"}}]
    rules = NodeRules(await objects(pod("p", "e1", volumes=volumes, serviceAccountName="sa"), pod("q", "e2")))
    token = {"spec": {"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "u"}}}

    def may(node: str, namespace: str, type_: str, name: str, content: Any = None) -> Answer:
        return rules.may(node, ResourcePath(namespace, type_, name), content)

    yes = [
        may("e1", "default", "node", "e1"),
        may("e1", "kube-node-lease", "lease", "e1"),
        may("e1", "ns", "podpatch", "p"),
        may("e1", "ns", "secret", "s"),
        may("e1", "ns", "persistentvolumeclaim", "c"),
        may("e1", "ns", "serviceaccounttoken", "sa", token),
        may("e1", "ns", "event", "x", {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "ns"}}),
        may("e1", "ns", "event", "x", {"event": {"involvedObject": {"kind": "Pod", "name": "gone"}}}),
    ]
    assert set(yes) == {Answer.YES}
    no = [
        may("e2", "default", "node", "e1"),
        may("e2", "default", "nodepatch", "e1"),
        may("e1", "default", "lease", "e1"),
        may("e2", "ns", "persistentvolumeclaim", "c"),
        may("e2", "ns", "serviceaccounttoken", "sa", token),
        may("e1", "ns", "serviceaccounttoken", "other", token),
        may("e1", "ns", "serviceaccounttoken", "sa", {"spec": {}}),
        may(
            "e1",
            "ns",
            "serviceaccounttoken",
            "sa",
            {"spec": {"boundObjectRef": {**token["spec"]["boundObjectRef"], "uid": "x"}}},
        ),
        may("e2", "ns", "event", "x", {"involvedObject": {"kind": "Pod", "name": "p"}}),
        may("e1", "ns", "event", "x", {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "other"}}),
        may("e1", "ns", "event", "x", {"involvedObject": {"kind": "Secret", "name": "s"}}),
        may("e1", "ns", "event", "x", "text"),
        may("e1", "ns", "gadget", "x"),
    ]
    assert set(no) == {Answer.NO}
    ask = [may("e2", "ns", "pod", "p"), may("e2", "ns", "secret", "s"), may("e1", "ns", "pod", "none")]
    assert set(ask) == {Answer.ASK}
    source = {"driver": "d", "nodePublishSecretRef": {"namespace": "vault", "name": "key"}}
    mounted = {"metadata": {"name": "pv"}, "spec": {"csi": source, "claimRef": {"namespace": "ns", "name": "c"}}}
    rules._objects.followed["persistentvolume"][0].replace([mounted])
    assert may("e1", "vault", "secret", "key") is Answer.YES
    assert may("e2", "vault", "secret", "key") is Answer.ASK
    assert may("e2", "default", "csinode", "e1") is Answer.NO
    for node, answer in (
        ("e1", Answer.YES),
        ("e2", Answer.NO),
    ):  # how large the volume of a claim is, and what happened to it
        assert may(node, "ns", "persistentvolumeclaim", "c") is answer
        involved = {"kind": "PersistentVolumeClaim", "name": "c", "namespace": "ns"}
        assert may(node, "ns", "event", "x", {"involvedObject": involved}) is answer
    assert may("e1", "default", "csidriver", "d") is Answer.YES
    assert rules.may_have("e1", "persistentvolume", {"spec": {"claimRef": {"namespace": "ns", "name": "c"}}})
    assert not rules.may_have("e2", "persistentvolume", {"spec": {"claimRef": {"namespace": "ns", "name": "c"}}})
    assert not rules.may_have("e1", "persistentvolume", {"spec": {}})
    assert rules.may_have("e1", "volumeattachment", {"spec": {"nodeName": "e1"}})


async def test_changes_that_wait_are_joined_by_object() -> None:
    caches = await objects()
    bus = LocalBus()
    inbox = bus.join("cloudhub", "cloudhub")
    maker = MessageMaker(lambda: 0.0, random.Random(1).getrandbits)
    on_its_way: list[tuple[str, str]] = []
    downstream = Downstream(
        caches, bus, maker, lambda uid: ["e7"] if uid == "uc" else [], lambda node, uid: on_its_way.append((node, uid))
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(downstream.run)
        await anyio.wait_all_tasks_blocked()
        caches.pods.apply("ADDED", pod("a", "e1", "ua"))
        caches.pods.apply("MODIFIED", {**pod("a", "e1", "ua"), "status": {"phase": "Running"}})
        caches.pods.apply("ADDED", pod("b", "", "ub"))
        caches.pods.apply("MODIFIED", pod("b", "e2", "ub"))
        caches.pods.apply("ADDED", pod("c", "e1", "up"))
        caches.pods.apply("DELETED", pod("c", "e1", "up"))
        caches.nodes.replace([{"metadata": {"name": "e9"}}])
        caches.nodes.replace([])
        config = {"metadata": {"name": "m", "namespace": "ns", "uid": "uc", "resourceVersion": "5"}}
        caches.configs["configmap"][0].apply("ADDED", config)
        caches.configs["configmap"][0].apply("DELETED", config)
        sent = [await inbox.receive() for _ in range(5)]
        assert [(one.operation, one.resource) for one in sent] == [
            ("delete", "node/e9/namespace/node/e9"),
            ("insert", "node/e1/ns/pod/a"),
            ("insert", "node/e2/ns/pod/b"),
            ("delete", "node/e1/ns/pod/c"),
            ("delete", "node/e7/ns/configmap/m"),
        ]
        assert sent[1].content["status"] == {"phase": "Running"}
        assert (sent[1].content["kind"], sent[1].content["apiVersion"]) == ("Pod", "v1")
        tasks.cancel_scope.cancel()
    inbox.close()


async def test_a_status_waits_a_moment_for_the_next_change_of_its_pod() -> None:
    caches, bus = await objects(), LocalBus()
    inbox = bus.join("cloudhub", "cloudhub")
    maker = MessageMaker(lambda: 0.0, random.Random(1).getrandbits)
    downstream = Downstream(caches, bus, maker, lambda uid: [], lambda node, uid: None)

    def change(name: str, phase: str, **metadata: Any) -> None:
        one = pod(name, "e1", f"u{name}")
        one["metadata"] |= metadata
        caches.pods.apply("MODIFIED", {**one, "status": {"phase": phase}})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(downstream.run)
        await anyio.wait_all_tasks_blocked()
        for name in "abc":
            caches.pods.apply("ADDED", pod(name, "e1", f"u{name}"))
        assert [(await inbox.receive()).operation for _ in range(3)] == ["insert"] * 3
        for name in "abc":
            change(name, "Pending", resourceVersion="5")
        await anyio.wait_all_tasks_blocked()
        change("a", "Running", resourceVersion="6")
        change("b", "Running", resourceVersion="6", labels={"new": "label"})
        caches.pods.apply("DELETED", pod("c", "e1", "uc"))
        await anyio.wait_all_tasks_blocked()
        sent = [await inbox.receive() for _ in range(2)]
        assert [(one.operation, one.resource) for one in sent] == [
            ("update", "node/e1/ns/pod/b"),
            ("delete", "node/e1/ns/pod/c"),
        ]
        with anyio.fail_after(5):
            last = await inbox.receive()
        assert (last.operation, last.resource) == ("update", "node/e1/ns/pod/a")
        assert last.content["status"] == {"phase": "Running"}
        with anyio.move_on_after(0.02) as nothing_else:
            await inbox.receive()
        assert nothing_else.cancelled_caught
        tasks.cancel_scope.cancel()
    inbox.close()


async def test_the_end_of_an_object_follows_it_on_its_way() -> None:
    """Neither acknowledged nor even sent: its end goes to whom it was for."""
    caches, bus, records = await objects(), LocalBus(), Records()
    inbox = bus.join("cloudhub", "cloudhub")
    maker = MessageMaker(lambda: 0.0, random.Random(1).getrandbits)
    downstream = Downstream(caches, bus, maker, records.holders, records.on_its_way)
    configs = caches.configs["configmap"][0]

    def config(uid: str) -> dict[str, Any]:
        return {"metadata": {"name": f"m-{uid}", "namespace": "ns", "uid": uid, "resourceVersion": "5"}}

    downstream.add("update", EdgeObject("configmap", config("waits")), ["e1"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(downstream.run)
        await anyio.wait_all_tasks_blocked()
        configs.apply("ADDED", config("waits"))
        downstream.add("update", EdgeObject("configmap", config("waits")), ["e2"])
        configs.apply("DELETED", config("waits"))  # before it was sent to the second
        await anyio.wait_all_tasks_blocked()
        sent = [await inbox.receive() for _ in range(3)]
        told = [(one.operation, one.resource.split("/")[1]) for one in sent]
        assert told[0] == ("update", "e1")
        assert sorted(told[1:]) == [("delete", "e1"), ("delete", "e2")]
        tasks.cancel_scope.cancel()
    inbox.close()


class Alarm:
    """Is due at ``due``; counts its calls."""

    def __init__(self, due: float) -> None:
        self.timer_at = math.inf
        self.due: float | None = due
        self.rang: list[float] = []

    def next_timer(self) -> float | None:
        return self.due

    def on_timer(self, now: float) -> None:
        self.rang.append(now)
        self.due = None


class Clock(RealClock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_timers_follow_times_that_move() -> None:
    clock = Clock()
    timers = Timers(clock)
    first, moved, none = Alarm(10.0), Alarm(20.0), Alarm(0.0)
    none.due = None
    for one in (first, moved, none):
        timers.arm(one)
    moved.due = 5.0
    timers.arm(moved)
    first.due = 40.0
    async with anyio.create_task_group() as tasks:
        clock.now = 15.0
        tasks.start_soon(timers.run)
        await anyio.wait_all_tasks_blocked()
        assert (moved.rang, first.rang, none.rang) == ([15.0], [], [])
        clock.now = 41.0
        late = Alarm(16.0)
        timers.arm(late)
        await anyio.wait_all_tasks_blocked()
        assert (first.rang, late.rang) == ([41.0], [41.0])
        tasks.cancel_scope.cancel()
