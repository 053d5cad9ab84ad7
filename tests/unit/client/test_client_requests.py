import anyio
import pytest

from edgesite.client import Client, EventRecorder
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import Resource
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio
PODS = Resource("", "v1", "Pod", "pods")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)


class Recording:
    """A transport that answers with what it is given and keeps what it was asked."""

    def __init__(self, status=200, body=b"{}"):
        self.asked = []
        self.answer = status, {}, body

    async def request(self, method, target, headers, body=b""):
        self.asked.append((method, target, dict(headers), body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_targets_quote_names_and_queries():
    transport = Recording()
    client = Client(transport)
    await client.get(ROLES, "system:node/x")
    await client.list(PODS, "a b", label_selector="app=x,y in (1,2)", limit=5)
    assert [target for _, target, _, _ in transport.asked] == [
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node%2Fx",
        "/api/v1/namespaces/a%20b/pods?labelSelector=app%3Dx%2Cy%20in%20%281%2C2%29&limit=5",
    ]


async def test_each_patch_type_has_its_content_type():
    transport = Recording()
    client = Client(transport).named("me")
    for kind in ("merge", "strategic", "json", "apply"):
        await client.patch(PODS, "a", {}, "d", kind=kind, field_manager="m", force=kind == "apply")
    assert [headers["content-type"] for _, _, headers, _ in transport.asked] == [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
    ]
    assert transport.asked[0][2]["user-agent"] == "me"
    assert transport.asked[3][1].endswith("?fieldManager=m&force=true")


async def test_delete_options_say_what_was_asked():
    transport = Recording()
    client = Client(transport)
    await client.delete(PODS, "a", "d")
    await client.delete(PODS, "a", "d", grace_period_s=0, propagation="Foreground", uid="u")
    assert transport.asked[0][3] == b""
    assert json.loads(transport.asked[1][3]) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u"},
    }


async def test_a_status_becomes_an_api_error():
    status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": 'pods "a" not found'}
    with pytest.raises(ApiError, match="not found") as caught:
        await Client(Recording(404, json.dumps(status))).get(PODS, "a", "d")
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")


@pytest.mark.parametrize(("status", "body"), [(502, b"<html>"), (200, b"<html>"), (200, b"[]"), (500, b"")])
async def test_any_broken_answer_is_an_api_error(status, body):
    with pytest.raises(ApiError):
        await Client(Recording(status, body)).get(PODS, "a", "d")


async def test_no_answer_is_service_unavailable():
    transport = Recording()
    transport.answer = ConnectionRefusedError("refused")
    with pytest.raises(ApiError) as caught:
        await Client(transport).get(PODS, "a", "d")
    assert caught.value.code == 503


POD = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "d", "uid": "u"}}


def events_of(api):
    return [obj for path, obj in api.objects.items() if "/events/" in path]


async def test_the_same_event_again_raises_its_count(client, api, clock):
    recorder = EventRecorder(client, "tester", clock, host="n1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recorder.run)
        recorder.event(POD, "Normal", "Started", "it runs")
        await anyio.sleep(60)
        recorder.event(POD, "Normal", "Started", "it runs")
        recorder.event(POD, "Warning", "Failed", "it does not")
        await settle()
        tasks.cancel_scope.cancel()
    first, second = events_of(api)
    assert (first["count"], first["firstTimestamp"], first["lastTimestamp"]) == (
        2,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:01:00Z",
    )
    assert first["involvedObject"] == {
        "kind": "Pod",
        "namespace": "d",
        "name": "p",
        "uid": "u",
        "apiVersion": "v1",
    }
    assert first["source"] == {"component": "tester", "host": "n1"}
    assert second["reason"] == "Failed"


async def test_similar_events_are_combined_and_a_flood_is_cut(client, api, clock):
    recorder = EventRecorder(client, "tester", clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recorder.run)
        for number in range(40):
            recorder.event(POD, "Warning", "Failed", f"attempt {number}")
        await settle()
        tasks.cancel_scope.cancel()
    written = events_of(api)
    assert len(written) == 11
    assert written[-1]["message"] == "(combined from similar events): attempt 24"
    assert written[-1]["count"] == 15
    assert recorder.dropped == 15


async def test_events_survive_a_server_that_is_away_for_a_moment(client, api, clock):
    recorder = EventRecorder(client, "tester", clock)
    api.fail(ConnectionRefusedError("down"), ConnectionRefusedError("down"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recorder.run)
        recorder.event(POD, "Normal", "Started", "it runs")
        await anyio.sleep(30)
        tasks.cancel_scope.cancel()
    assert len(events_of(api)) == 1
    assert recorder.dropped == 0


async def test_an_event_that_expired_is_written_anew(client, api, clock):
    recorder = EventRecorder(client, "tester", clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recorder.run)
        recorder.event(POD, "Normal", "Started", "it runs")
        await settle()
        for path in [path for path in api.objects if "/events/" in path]:
            del api.objects[path]
        recorder.event(POD, "Normal", "Started", "it runs")
        await settle()
        tasks.cancel_scope.cancel()
    assert [one["count"] for one in events_of(api)] == [1]
