"""Filters, scores and preemption as pure functions."""

import pytest

from edgesite.controlplane.scheduler import preemption
from edgesite.controlplane.scheduler.cache import Cache, PodInfo
from edgesite.controlplane.scheduler.filters import NodeFilter
from edgesite.controlplane.scheduler.refusal import refused_message
from edgesite.controlplane.scheduler.scores import rate


def node(name, cpu="2", memory="4Gi", pods="110", labels=None, taints=(), unschedulable=False, images=()):
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}, "images": list(images)},
    }


def pod(name, cpu=None, labels=None, priority=0, on=None, namespace="d", started=None, owner=None, **spec):
    container = {"name": "c", "image": "i"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    meta = {"name": name, "namespace": namespace, "uid": name, "labels": labels or {}}
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "controller": True, "kind": "ReplicaSet", "name": owner}]
    spec = {"containers": [container], "priority": priority, **spec}
    if on:
        spec["nodeName"] = on
    return {"metadata": meta, "spec": spec, "status": {"startTime": started} if started else {}}


def judged(incoming, nodes, existing=(), namespace_labels=None):
    """Refusal reasons by node, as {name: (reasons)}; () where it fits."""
    cache = Cache()
    for one in nodes:
        cache.put_node(one)
    for one in existing:
        cache.put_pod(one)
    states = cache.nodes
    judge = NodeFilter(PodInfo.of(incoming), states, namespace_labels or {})
    refusals = {state.name: judge.judge(state) for state in states}
    return {name: one.reasons if one else () for name, one in refusals.items()}


def rated(incoming, nodes, existing=()):
    cache = Cache()
    for one in nodes:
        cache.put_node(one)
    for one in existing:
        cache.put_pod(one)
    info, states = PodInfo.of(incoming), cache.nodes
    ratings = dict(zip([one.name for one in states], rate(info, states, states, {}), strict=True))
    return max(ratings, key=ratings.get), ratings


def affine(kind, key="zone", app="web", **more):
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def test_free_resources_count_what_is_there():
    found = judged(pod("p", "1"), [node("full"), node("free")], [pod("a", "1500m", on="full")])
    assert found == {"full": ("Insufficient cpu",), "free": ()}


def test_ended_pods_take_nothing():
    done = pod("a", "2", on="n")
    done["status"]["phase"] = "Succeeded"
    assert judged(pod("p", "1"), [node("n")], [done]) == {"n": ()}


def test_the_number_of_pods_is_a_resource():
    assert judged(pod("p"), [node("n", pods="1")], [pod("a", on="n")]) == {"n": ("Too many pods",)}


def test_init_containers_count_at_their_peak_and_sidecars_all_along():
    spec = {
        "initContainers": [
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "init", "resources": {"requests": {"cpu": "1"}}},
        ],
        "overhead": {"cpu": "100m"},
    }
    assert PodInfo.of(pod("p", "200m", **spec)).requests["cpu"] == 1600
    assert PodInfo.of(pod("p", "2", **spec)).requests["cpu"] == 2600


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({}, False),
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Equal", "value": "v"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints_need_a_toleration(toleration, fits):
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    found = judged(pod("p", tolerations=[toleration]), [node("n", taints=[taint])])
    assert found == {"n": () if fits else ("node(s) had untolerated taint {k: v}",)}


def test_cordoned_nodes_take_only_pods_that_tolerate_it():
    tolerant = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]
    assert judged(pod("p"), [node("n", unschedulable=True)]) == {"n": ("node(s) were unschedulable",)}
    assert judged(pod("p", tolerations=tolerant), [node("n", unschedulable=True)]) == {"n": ()}


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd", "hdd"]}, True),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, False),
        ({"key": "gpu", "operator": "NotIn", "values": ["x"]}, True),
        ({"key": "disk", "operator": "Exists"}, True),
        ({"key": "disk", "operator": "DoesNotExist"}, False),
        ({"key": "cores", "operator": "Gt", "values": ["3"]}, True),
        ({"key": "cores", "operator": "Lt", "values": ["4"]}, False),
        ({"key": "disk", "operator": "Gt", "values": ["3"]}, False),
    ],
)
def test_node_affinity_expressions(expression, fits):
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    found = judged(pod("p", affinity=affinity), [node("n", labels={"disk": "ssd", "cores": "4"})])
    assert found == {"n": () if fits else ("node(s) didn't match Pod's node affinity/selector",)}


def test_node_affinity_by_name_and_an_empty_term_matches_nothing():
    def affinity(*terms):
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}

    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    found = judged(pod("p", affinity=affinity({}, field)), [node("a"), node("b")])
    assert [name for name, reasons in found.items() if not reasons] == ["b"]


def test_node_selector():
    found = judged(pod("p", nodeSelector={"zone": "x"}), [node("a", labels={"zone": "x"}), node("b")])
    assert [name for name, reasons in found.items() if not reasons] == ["a"]


def test_host_ports_clash_on_the_same_and_on_all_addresses():
    def with_port(name, address, on=None):
        one = pod(name, on=on)
        one["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080, "hostIP": address}]
        return one

    there = with_port("a", "10.0.0.1", on="n")
    clash = {"n": ("node(s) didn't have free ports for the requested pod ports",)}
    assert judged(with_port("p", "10.0.0.1"), [node("n")], [there]) == clash
    assert judged(with_port("p", "0.0.0.0"), [node("n")], [there]) == clash
    assert judged(with_port("p", "10.0.0.2"), [node("n")], [there]) == {"n": ()}


ZONES = [node("a1", labels={"zone": "a"}), node("a2", labels={"zone": "a"}), node("b1", labels={"zone": "b"})]


def test_pod_affinity_draws_to_the_topology_of_a_match():
    found = judged(pod("p", **affine("podAffinity")), ZONES, [pod("w", labels={"app": "web"}, on="a1")])
    assert found == {"a1": (), "a2": (), "b1": ("node(s) didn't match pod affinity rules",)}


def test_the_first_of_a_group_that_wants_to_be_together_may_go_anywhere():
    assert set(judged(pod("p", labels={"app": "web"}, **affine("podAffinity")), ZONES).values()) == {()}
    assert () not in judged(pod("p", **affine("podAffinity")), ZONES).values()


def test_pod_anti_affinity_holds_both_ways():
    existing = [pod("w", labels={"app": "web"}, on="a1")]
    found = judged(pod("p", **affine("podAntiAffinity")), ZONES, existing)
    assert found == {
        "a1": ("node(s) didn't match pod anti-affinity rules",),
        "a2": ("node(s) didn't match pod anti-affinity rules",),
        "b1": (),
    }
    shy = [pod("shy", on="a1", **affine("podAntiAffinity"))]
    found = judged(pod("p", labels={"app": "web"}), ZONES, shy)
    assert found["a2"] == ("node(s) didn't satisfy existing pods anti-affinity rules",)
    assert found["b1"] == ()


def test_affinity_terms_look_at_their_own_namespaces_only():
    other = [pod("w", labels={"app": "web"}, on="a1", namespace="other")]
    assert set(judged(pod("p", **affine("podAntiAffinity")), ZONES, other).values()) == {()}
    named = affine("podAntiAffinity", namespaces=["other"])
    assert judged(pod("p", **named), ZONES, other)["a1"] != ()
    selected = affine("podAntiAffinity", namespaceSelector={"matchLabels": {"team": "x"}})
    assert judged(pod("p", **selected), ZONES, other, {"other": {"team": "x"}})["a1"] != ()
    assert judged(pod("p", **selected), ZONES, other, {"other": {"team": "y"}})["a1"] == ()


def test_topology_spread_keeps_the_skew():
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    web = {"app": "web"}
    incoming = pod("p", labels=web, topologySpreadConstraints=[constraint])
    found = judged(incoming, [*ZONES, node("nowhere")], [pod("w", labels=web, on="a1")])
    assert found["b1"] == ()
    assert found["a2"] == ("node(s) didn't match pod topology spread constraints",)
    assert found["nowhere"] == ("node(s) didn't match pod topology spread constraints (missing required label)",)


def test_the_message_counts_and_sorts_reasons():
    cache = Cache()
    for one in (
        node("a", cpu="1"),
        node("b", cpu="1"),
        node("c", taints=[{"key": "node-role.kubernetes.io/edge", "effect": "NoSchedule"}]),
    ):
        cache.put_node(one)
    judge = NodeFilter(PodInfo.of(pod("p", "2")), cache.nodes, {})
    refusals = [judge.judge(state) for state in cache.nodes]
    assert refused_message(3, refusals) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/edge: }, 2 Insufficient cpu."
    )


def test_the_emptier_node_is_better():
    assert rated(pod("p", "100m"), [node("a"), node("b")], [pod("x", "1", on="a")])[0] == "b"


def test_replicas_of_one_owner_are_spread():
    existing = [pod("x", owner="rs", on="a"), pod("y", owner="rs", on="a"), pod("z", owner="other", on="b")]
    assert rated(pod("p", owner="rs"), [node("a"), node("b", cpu="1.8")], existing)[0] == "b"


def test_wishes_are_granted():
    wish = {"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    assert rated(pod("p", affinity=affinity), [node("a"), node("b", labels={"disk": "x"})])[0] == "b"
    near = {"weight": 9, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}}
    for kind, best in (("podAffinity", "a1"), ("podAntiAffinity", "b1")):
        affinity = {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [near]}}
        existing = [pod("w", labels={"app": "web"}, on="a1")]
        assert rated(pod("p", affinity=affinity), [ZONES[0], ZONES[2]], existing)[0] == best


def test_taints_that_prefer_nobody_and_images_that_are_there():
    shy = node("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert rated(pod("p"), [shy, node("b")])[0] == "b"
    has_image = node("b", images=[{"names": ["i:latest"], "sizeBytes": 900 << 20}])
    assert rated(pod("p"), [node("a"), has_image])[0] == "b"


def planned(incoming, nodes, existing):
    cache = Cache()
    for one in nodes:
        cache.put_node(one)
    for one in existing:
        cache.put_pod(one)
    info, states = PodInfo.of(incoming), cache.nodes
    judge = NodeFilter(info, states, {})
    refusals = {state.name: judge.judge(state) for state in states}
    found = preemption.plan(info, cache, judge, states, refusals)
    return found and (found.node, sorted(one.key.name for one in found.victims))


def test_preemption_takes_the_fewest_of_the_lowest():
    existing = [
        pod("low", "1", priority=1, on="a"),
        pod("mid", "1", priority=5, on="a"),
        pod("big", "2", priority=3, on="b"),
    ]
    assert planned(pod("p", "1", priority=10), [node("a"), node("b")], existing) == ("a", ["low"])


def test_preemption_spares_equals_and_those_who_need_not_go():
    assert planned(pod("p", "1", priority=5), [node("a")], [pod("x", "2", priority=5, on="a")]) is None
    existing = [pod("x", "1500m", priority=1, on="a"), pod("tiny", "100m", priority=1, on="a")]
    assert planned(pod("p", "1", priority=5), [node("a")], existing) == ("a", ["x"])


def test_preemption_is_no_help_against_taints_or_against_a_node_that_is_too_small():
    tainted = node("a", taints=[{"key": "k", "effect": "NoSchedule"}])
    assert planned(pod("p", "1", priority=5), [tainted], [pod("x", "2", on="a")]) is None
    assert planned(pod("p", "3", priority=5), [node("a")], [pod("x", "2", on="a")]) is None


def test_preemption_ends_anti_affinity_that_lower_pods_cause():
    shy = pod("shy", on="a", **affine("podAntiAffinity", key="kubernetes.io/hostname"))
    assert planned(pod("p", labels={"app": "web"}, priority=5), [node("a")], [shy]) == ("a", ["shy"])
