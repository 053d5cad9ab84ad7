"""Objects from creation to deletion: metadata, preconditions, defaults, refusals, in the words of kube-apiserver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from apiserver_site import Site, site_at

from edgesite.kube.resources import Resource

pytestmark = pytest.mark.anyio
CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "web", "image": "nginx:1.25"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "nginx:1.25"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


async def test_create_gives_identity(site: Site) -> None:
    made = await site.post(CMS, config_map("a", k="v"))
    assert made.status == 201
    metadata = made.obj["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert (await site.get(f"{CMS}/a")).body == made.body
    assert metadata["managedFields"][0]["manager"] == "kubectl"


async def test_generate_name(site: Site) -> None:
    body = {"metadata": {"generateName": "x-"}}
    first, second = (await site.post(CMS, body)).obj, (await site.post(CMS, body)).obj
    assert first["metadata"]["name"].startswith("x-")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["kind"] == "ConfigMap"


async def test_second_create_conflicts(site: Site) -> None:
    await site.post(CMS, config_map("a"))
    again = await site.post(CMS, config_map("a"))
    assert again.status == 409
    assert again.obj["reason"] == "AlreadyExists"
    assert again.obj["message"] == 'configmaps "a" already exists'
    assert again.obj["details"] == {"name": "a", "kind": "configmaps"}


async def test_first_applies_at_the_same_moment_all_count(site: Site) -> None:
    """Whoever comes second finds the object there and changes it, instead of being told that it exists."""
    answers: list[int] = []

    async def apply(number: int) -> None:
        body = config_map("same", **{f"k{number}": "v"})
        answers.append((await site.patch(f"{CMS}/same?fieldManager=m{number}", body, "apply")).status)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(apply, number)
    assert sorted(answers) == [200] * 7 + [201]
    assert len((await site.get(f"{CMS}/same")).obj["data"]) == 8


async def test_stale_update_conflicts(site: Site) -> None:
    old = (await site.post(CMS, config_map("a", k="1"))).obj
    assert (await site.put(f"{CMS}/a", {**old, "data": {"k": "2"}})).status == 200
    stale = await site.put(f"{CMS}/a", {**old, "data": {"k": "3"}})
    assert stale.status == 409
    assert stale.obj["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert (await site.get(f"{CMS}/a")).obj["data"] == {"k": "2"}


async def test_update_without_change_keeps_revision(site: Site) -> None:
    old = (await site.post(CMS, config_map("a", k="1"))).obj
    again = (await site.put(f"{CMS}/a", old)).obj
    assert again["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]


async def test_update_keeps_what_the_server_owns(site: Site) -> None:
    old = (await site.post(CMS, config_map("a", k="1"))).obj
    body = config_map("a", k="2")
    body["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z"
    new = (await site.put(f"{CMS}/a", body)).obj
    for name in ("uid", "creationTimestamp"):
        assert new["metadata"][name] == old["metadata"][name]


async def test_update_of_another_uid_conflicts(site: Site) -> None:
    await site.post(CMS, config_map("a"))
    body = config_map("a", k="2")
    body["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    answer = await site.put(f"{CMS}/a", body)
    assert answer.status == 409
    assert "Precondition failed: UID in precondition" in answer.obj["message"]


async def test_name_must_fit_the_path(site: Site) -> None:
    await site.post(CMS, config_map("a"))
    answer = await site.put(f"{CMS}/a", config_map("b"))
    assert answer.status == 400
    assert answer.obj["message"] == "the name of the object (b) does not match the name on the URL (a)"


async def test_missing_object(site: Site) -> None:
    for answer in (
        await site.get(f"{CMS}/no"),
        await site.put(f"{CMS}/no", config_map("no")),
        await site.patch(f"{CMS}/no", {}),
        await site.delete(f"{CMS}/no"),
    ):
        assert answer.status == 404
        assert answer.obj["message"] == 'configmaps "no" not found'


async def test_namespace_must_be_there(site: Site) -> None:
    answer = await site.post("/api/v1/namespaces/no/configmaps", config_map("a"))
    assert (answer.status, answer.obj["message"]) == (404, 'namespaces "no" not found')


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", 400, "json"),
        (b"[]", 400, "must be an object"),
        (b'"x"', 400, "must be an object"),
        (b'{"kind":"Pod","apiVersion":"v1"}', 400, "does not match the expected kind"),
        (b'{"kind":"ConfigMap","apiVersion":"v2"}', 400, "does not match the expected API version"),
        (b'{"kind":5}', 400, "must be strings"),
        (b'{"metadata":5}', 400, "cannot be handled as a ConfigMap"),
        (b'{"metadata":{"name":5}}', 400, "cannot unmarshal number"),
        (b'{"metadata":{"name":"a"},"data":{"a":1}}', 400, "cannot unmarshal number"),
        (b'{"metadata":{"name":"A_B"}}', 422, "a lowercase RFC 1123 subdomain"),
        (b'{"metadata":{}}', 422, "name or generateName is required"),
        (b'{"metadata":{"name":"a","namespace":"other"}}', 400, "does not match the namespace sent"),
        (b"\xff\xfe", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b'{"data":' * 100_000, 400, ""),
    ],
)
async def test_bad_bodies(site: Site, body: bytes, code: int, message: str) -> None:
    answer = await site.post(CMS, body)
    assert answer.status == code, answer.body
    assert answer.obj["kind"] == "Status"
    assert message in answer.obj["message"]


async def test_field_validation(site: Site) -> None:
    body = {**config_map("a"), "foo": 1}
    strict = await site.post(f"{CMS}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'strict decoding error: unknown field "foo"' in strict.obj["message"]
    warned = await site.post(CMS, body)
    assert warned.status == 201
    assert warned.headers["warning"] == '299 - "unknown field \\"foo\\""'
    assert "foo" not in warned.obj
    ignored = await site.post(f"{CMS}?fieldValidation=Ignore", {**config_map("b"), "foo": 1})
    assert ignored.status == 201
    assert "warning" not in ignored.headers
    assert (await site.post(f"{CMS}?fieldValidation=No", body)).status == 422


async def test_dry_run_stores_nothing(site: Site) -> None:
    tried = await site.post(f"{CMS}?dryRun=All", config_map("a"))
    assert tried.status == 201
    assert "resourceVersion" not in tried.obj["metadata"]
    assert (await site.get(f"{CMS}/a")).status == 404
    await site.post(CMS, config_map("a", k="1"))
    assert (await site.put(f"{CMS}/a?dryRun=All", config_map("a", k="2"))).obj["data"] == {"k": "2"}
    assert (await site.delete(f"{CMS}/a?dryRun=All")).status == 200
    assert (await site.get(f"{CMS}/a")).obj["data"] == {"k": "1"}
    assert (await site.post(f"{CMS}?dryRun=Some", config_map("b"))).status == 422


async def test_yaml_bodies_both_ways(site: Site) -> None:
    text = b"metadata: {name: a}\ndata:\n  since: '2020-01-01'\n"
    made = await site.post(CMS, text, content_type="application/yaml", accept="application/yaml")
    assert made.status == 201
    assert made.headers["content-type"] == "application/yaml"
    assert b"since: '2020-01-01'" in made.body
    assert (await site.post(CMS, b"a: [", content_type="application/yaml")).status == 400


async def test_other_content_types_are_refused(site: Site) -> None:
    answer = await site.post(CMS, b"x", content_type="text/plain")
    assert (answer.status, answer.obj["reason"]) == (415, "UnsupportedMediaType")
    answer = await site.get(CMS, accept="application/vnd.kubernetes.protobuf")
    assert (answer.status, answer.obj["reason"]) == (406, "NotAcceptable")
    assert (await site.get(CMS, accept="application/vnd.kubernetes.protobuf,application/json")).status == 200


async def test_delete_answers_with_a_status(site: Site) -> None:
    uid = (await site.post(CMS, config_map("a"))).obj["metadata"]["uid"]
    gone = await site.delete(f"{CMS}/a")
    assert gone.obj["status"] == "Success"
    assert gone.obj["details"] == {"name": "a", "kind": "configmaps", "uid": uid}
    assert (await site.get(f"{CMS}/a")).status == 404


async def test_delete_preconditions(site: Site) -> None:
    made = (await site.post(CMS, config_map("a"))).obj
    for wrong in ({"uid": "no"}, {"resourceVersion": "1"}):
        answer = await site.delete(f"{CMS}/a", {"preconditions": wrong})
        assert answer.status == 409
        assert "Precondition failed" in answer.obj["message"]
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    assert (await site.delete(f"{CMS}/a", {"preconditions": right})).status == 200


@pytest.mark.parametrize("body", [b"[]", b'{"gracePeriodSeconds":"x"}', b'{"kind":"Pod"}', b"{"])
async def test_bad_delete_options(site: Site, body: bytes) -> None:
    await site.post(CMS, config_map("a"))
    assert (await site.delete(f"{CMS}/a", body)).status == 400
    assert (await site.get(f"{CMS}/a")).status == 200


async def test_finalizers_hold_the_deletion(site: Site) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/mine"]
    await site.post(CMS, body)
    marked = await site.delete(f"{CMS}/a")
    assert marked.status == 200
    assert marked.obj["metadata"]["deletionTimestamp"]
    assert (await site.delete(f"{CMS}/a")).status == 200
    added = await site.patch(f"{CMS}/a", {"metadata": {"finalizers": ["example.com/mine", "example.com/new"]}})
    assert added.status == 422
    assert (await site.patch(f"{CMS}/a", {"metadata": {"finalizers": None}})).status == 200
    assert (await site.get(f"{CMS}/a")).status == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_becomes_a_finalizer(site: Site, policy: str, finalizer: str) -> None:
    await site.post(DEPLOYMENTS, deployment("web"))
    marked = (await site.delete(f"{DEPLOYMENTS}/web", {"propagationPolicy": policy})).obj
    assert marked["metadata"]["finalizers"] == [finalizer]
    assert marked["metadata"]["deletionTimestamp"]
    assert (await site.patch(f"{DEPLOYMENTS}/web", {"metadata": {"finalizers": None}})).status == 200
    assert (await site.get(f"{DEPLOYMENTS}/web")).status == 404


async def test_delete_collection(site: Site) -> None:
    for name, tier in (("a", "x"), ("b", "x"), ("c", "y")):
        body = config_map(name)
        body["metadata"]["labels"] = {"tier": tier}
        await site.post(CMS, body)
    gone = await site.delete(f"{CMS}?labelSelector=tier%3Dx")
    assert [one["metadata"]["name"] for one in gone.obj["items"]] == ["a", "b"]
    assert [one["metadata"]["name"] for one in (await site.get(CMS)).obj["items"]] == ["c"]


async def test_generation_counts_changes_of_spec(site: Site) -> None:
    made = (await site.post(DEPLOYMENTS, deployment("web"))).obj
    assert made["metadata"]["generation"] == 1
    labelled = (await site.patch(f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"a": "b"}}})).obj
    assert labelled["metadata"]["generation"] == 1
    scaled = (await site.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 3}})).obj
    assert scaled["metadata"]["generation"] == 2


async def test_status_has_its_own_door(site: Site) -> None:
    body = {**deployment("web"), "status": {"replicas": 9}}
    made = (await site.post(DEPLOYMENTS, body)).obj
    assert made["status"] == {}
    main = (await site.patch(f"{DEPLOYMENTS}/web", {"status": {"replicas": 9}})).obj
    assert main["status"] == {}
    assert main["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    patch = {"spec": {"replicas": 9}, "status": {"replicas": 1, "observedGeneration": 1}}
    status = (await site.named("deployment").patch(f"{DEPLOYMENTS}/web/status", patch)).obj
    assert status["status"] == {"replicas": 1, "observedGeneration": 1}
    assert (status["spec"]["replicas"], status["metadata"]["generation"]) == (2, 1)
    managers = {(one["manager"], one.get("subresource")) for one in status["metadata"]["managedFields"]}
    assert managers == {("kubectl", None), ("deployment", "status")}
    assert (await site.get(f"{DEPLOYMENTS}/web/status")).obj == status


async def test_scale(site: Site) -> None:
    await site.post(DEPLOYMENTS, deployment("web"))
    scale = (await site.get(f"{DEPLOYMENTS}/web/scale")).obj
    assert scale["kind"] == "Scale"
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}
    scale["spec"]["replicas"] = 5
    assert (await site.put(f"{DEPLOYMENTS}/web/scale", scale)).obj["spec"] == {"replicas": 5}
    assert (await site.put(f"{DEPLOYMENTS}/web/scale", scale)).status == 409
    patched = await site.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 0}})
    assert patched.obj["spec"] == {}
    found = (await site.get(f"{DEPLOYMENTS}/web")).obj
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (0, 3)
    assert (await site.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}})).status == 422
    assert (await site.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": "1"}})).status == 400


async def test_immutable_fields(site: Site) -> None:
    await site.post(DEPLOYMENTS, deployment("web"))
    answer = await site.patch(f"{DEPLOYMENTS}/web", {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
    assert answer.status == 422
    assert answer.obj["message"].startswith('Deployment.apps "web" is invalid: ')


async def test_pod_defaults_and_admission(site: Site) -> None:
    made = (await site.post(PODS, pod("a"))).obj
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    spec = made["spec"]
    assert (spec["serviceAccountName"], spec["priority"], spec["restartPolicy"]) == ("default", 0, "Always")
    assert {one["key"] for one in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    critical = (await site.post(PODS, pod("b", priorityClassName="system-node-critical"))).obj
    assert critical["spec"]["priority"] == 2000001000
    refused = await site.post(PODS, pod("c", priorityClassName="no"))
    assert (refused.status, refused.obj["message"]) == (
        403,
        'pods "c" is forbidden: no PriorityClass with name no was found',
    )
    refused = await site.post(PODS, pod("c", serviceAccountName="no"))
    assert refused.status == 403
    assert 'error looking up service account default/no: serviceaccount "no" not found' in refused.obj["message"]


async def test_binding_and_graceful_deletion(site: Site) -> None:
    await site.post(PODS, pod("a"))
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "edge-1"}}
    assert (await site.post(f"{PODS}/a/binding", binding)).status == 201
    bound = (await site.get(f"{PODS}/a")).obj
    assert bound["spec"]["nodeName"] == "edge-1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    again = await site.post(f"{PODS}/a/binding", binding)
    assert again.status == 409
    assert again.obj["message"] == (
        'Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "edge-1"'
    )
    marked = (await site.delete(f"{PODS}/a")).obj
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = (await site.delete(f"{PODS}/a", {"gracePeriodSeconds": 5})).obj
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    longer = (await site.delete(f"{PODS}/a", {"gracePeriodSeconds": 50})).obj
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await site.delete(f"{PODS}/a", {"gracePeriodSeconds": 0})).status == 200
    assert (await site.get(f"{PODS}/a")).status == 404


async def test_unscheduled_pod_is_deleted_at_once(site: Site) -> None:
    await site.post(PODS, pod("a"))
    assert (await site.delete(f"{PODS}/a")).obj["kind"] == "Pod"
    assert (await site.get(f"{PODS}/a")).status == 404


async def test_eviction_keeps_to_budgets(site: Site) -> None:
    body = pod("a")
    body["metadata"]["labels"] = {"app": "a"}
    await site.post(PODS, body)
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}
    assert (await site.post(budgets, budget)).status == 201
    refused = await site.post(f"{PODS}/a/eviction", {"metadata": {"name": "a"}})
    assert refused.status == 429
    assert refused.obj["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    status = {"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}}
    assert (await site.patch(f"{budgets}/b/status", status)).status == 200
    assert (await site.post(f"{PODS}/a/eviction", {"metadata": {"name": "a"}})).status == 201
    assert (await site.get(f"{PODS}/a")).status == 404
    assert (await site.get(f"{budgets}/b")).obj["status"]["disruptionsAllowed"] == 0


async def test_namespace_life(site: Site) -> None:
    made = (await site.post("/api/v1/namespaces", {"metadata": {"name": "x"}})).obj
    assert made["spec"] == {"finalizers": ["kubernetes"]}
    assert made["status"] == {"phase": "Active"}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    marked = (await site.delete("/api/v1/namespaces/x")).obj
    assert marked["status"]["phase"] == "Terminating"
    refused = await site.post("/api/v1/namespaces/x/configmaps", config_map("a"))
    assert refused.status == 403
    assert refused.obj["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    marked["spec"] = {}
    assert (await site.put("/api/v1/namespaces/x/finalize", marked)).status == 200
    assert (await site.get("/api/v1/namespaces/x")).status == 404
    assert (await site.delete("/api/v1/namespaces/default")).status == 403


async def test_services_get_addresses(site: Site) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}}
    made = (await site.post(services, body)).obj
    address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    assert address.startswith("10.96.")
    assert 30000 <= port <= 32767
    taken = {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}], "clusterIP": address}}
    refused = await site.post(services, taken)
    assert refused.status == 422
    assert "provided IP is already allocated" in refused.obj["message"]
    taken = {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80, "nodePort": port}], "type": "NodePort"}}
    assert "provided port is already allocated" in (await site.post(services, taken)).obj["message"]
    update = (await site.put(f"{services}/a", {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}})).obj
    assert update["spec"]["clusterIP"] == address
    await site.delete(f"{services}/a")
    taken["spec"]["clusterIP"] = address
    assert (await site.post(services, taken)).status == 201
    headless = {"metadata": {"name": "h"}, "spec": {"ports": [{"port": 80}], "clusterIP": "None"}}
    assert (await site.post(services, headless)).obj["spec"]["clusterIPs"] == ["None"]


async def test_long_yaml(site: Site) -> None:
    lines = b"".join(b"  key%d: value %d\n" % (number, number) for number in range(5000))
    made = await site.post(CMS, b"metadata: {name: a}\ndata:\n" + lines, content_type="application/yaml")
    assert (made.status, len(made.obj["data"])) == (201, 5000)


async def test_deep_objects(tmp_path: Path) -> None:
    things = "/apis/acme.example.com/v1/namespaces/default/things"
    async with site_at(tmp_path, extra=[Resource("acme.example.com", "v1", "Thing", "things")]) as site:
        for depth in (50, 200, 400, 600, 800, 950, 5000):
            body = b'{"metadata":{"name":"a%d"},"x":%b1%b}' % (depth, b'{"y":' * depth, b"}" * depth)
            for answer in (
                await site.post(things, body),
                await site.patch(f"{things}/a{depth}", {"z": 1}),
                await site.patch(f"{things}/b{depth}?fieldManager=me", body.replace(b'"a', b'"b'), "apply"),
                await site.put(f"{things}/a{depth}", body),
            ):
                assert answer.status in (200, 201, 400, 404), (depth, answer.body)
        table = await site.get(things, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        assert [row["cells"][0] for row in table.obj["rows"]] == ["a200", "a50", "b200", "b50"]


async def test_services_change_their_type(site: Site) -> None:
    services = "/api/v1/namespaces/default/services"
    await site.post(services, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}})
    plain = await site.patch(f"{services}/a", {"spec": {"type": "ClusterIP"}})
    assert plain.status == 200, plain.body
    assert "nodePort" not in plain.obj["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in plain.obj["spec"]
    named = await site.patch(f"{services}/a", {"spec": {"type": "ExternalName", "externalName": "example.com"}})
    assert named.status == 200, named.body
    assert "clusterIP" not in named.obj["spec"]
    back = await site.patch(f"{services}/a", {"spec": {"type": "NodePort", "externalName": None}})
    assert back.status == 200, back.body
    assert back.obj["spec"]["clusterIP"]
    assert back.obj["spec"]["ports"][0]["nodePort"]


async def test_kinds_of_plugins_need_no_schema(tmp_path: Path) -> None:
    things = "/apis/acme.example.com/v1/namespaces/default/things"
    async with site_at(tmp_path, extra=[Resource("acme.example.com", "v1", "Thing", "things")]) as site:
        made = await site.post(things, {"metadata": {"name": "a"}, "anything": {"goes": [1, None]}})
        assert made.status == 201, made.body
        assert made.obj["apiVersion"] == "acme.example.com/v1"
        changed = await site.patch(f"{things}/a", {"anything": {"goes": 2}})
        assert (changed.obj["anything"], changed.obj["metadata"]["generation"]) == ({"goes": 2}, 2)
        assert (await site.get(f"{things}/a")).obj == changed.obj
        assert (await site.patch(f"{things}/a", {}, "strategic-merge")).status == 415
        config = {"apiVersion": "acme.example.com/v1", "kind": "Thing", "metadata": {"name": "b"}, "x": {"y": 1}}
        assert (await site.patch(f"{things}/b?fieldManager=me", config, "apply")).status == 201
        assert [one["metadata"]["name"] for one in (await site.get(things)).obj["items"]] == ["a", "b"]


async def test_allocations_survive_a_restart(tmp_path: Path) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}
    async with site_at(tmp_path) as site:
        address = (await site.post(services, body)).obj["spec"]["clusterIP"]
    async with site_at(tmp_path) as site:
        assert (await site.get(f"{services}/a")).obj["spec"]["clusterIP"] == address
        taken = {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}], "clusterIP": address}}
        assert (await site.post(services, taken)).status == 422


async def test_secret_plain_text_is_folded(site: Site) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    made = (await site.post(secrets, {"metadata": {"name": "a"}, "stringData": {"k": "v"}})).obj
    assert made["data"] == {"k": "dg=="}
    assert made["type"] == "Opaque"
    assert "stringData" not in made


async def test_lease_needs_a_revision(site: Site) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    made = await site.put(f"{leases}/n", {"metadata": {"name": "n"}, "spec": {"holderIdentity": "n"}})
    assert made.status == 201
    refused = await site.put(f"{leases}/n", {"metadata": {"name": "n"}, "spec": {"holderIdentity": "m"}})
    assert refused.status == 422
    assert "must be specified for an update" in refused.obj["message"]
    renewed = made.obj
    renewed["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"
    assert (await site.put(f"{leases}/n", renewed)).status == 200


async def test_reads_and_errors_for_unknown_things(site: Site) -> None:
    elsewhere = ("/api/v1/namespaces/default/nodes", "/api/v1/namespaces/default/namespaces/x")
    for target in (*elsewhere, "/apis/no.example.com/v1/things", "/api/v1/things", f"{CMS}/a/no", "/no", "/api/v2"):
        answer = await site.get(target)
        assert answer.status == 404, target
        assert answer.obj["message"] == "the server could not find the requested resource"
    assert (await site.post(f"{CMS}/a", config_map("a"))).status == 405
    assert (await site.delete("/api/v1/namespaces")).status == 405
    assert (await site.call("BREW", CMS)).status in (400, 404, 405)
    assert (await site.post("/api/v1/configmaps", config_map("a"))).status == 400


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        body = config_map("a", k="v")
        body["metadata"]["labels"] = {"tier": "x"}
        made = await site.post(CMS, body)
    async with site_at(tmp_path) as site:
        assert (await site.get(f"{CMS}/a")).body == made.body
        assert len((await site.get(f"{CMS}?labelSelector=tier%3Dx")).obj["items"]) == 1
