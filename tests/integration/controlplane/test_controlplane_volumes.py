"""Claims of a StatefulSet on the real API server: bound to volumes made by hand, and kept."""

import pytest

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STATEFUL_SETS

pytestmark = pytest.mark.anyio


def volume(name, size):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/x/{name}"}},
    }


def stateful_set(replicas):
    template = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    container = {"name": "c", "image": "v1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": template}],
        },
    }


async def test_the_claims_of_a_stateful_set_find_volumes_and_stay(site):
    await site.node()
    for name, size in (("pv-a", "5Gi"), ("pv-b", "2Gi")):
        await site.client.create(PERSISTENT_VOLUMES, volume(name, size))
    await site.client.create(STATEFUL_SETS, stateful_set(2))

    def bound(claims):
        found = {one["metadata"]["name"]: one for one in claims.list("default")}
        done = [one for one in found.values() if (one.get("status") or {}).get("phase") == "Bound"]
        return found if len(done) == 2 else None

    claims = await site.until(PERSISTENT_VOLUME_CLAIMS, bound)
    assert {name: one["spec"]["volumeName"] for name, one in claims.items()} == {
        "data-db-0": "pv-b",
        "data-db-1": "pv-a",
    }
    assert claims["data-db-0"]["status"]["capacity"] == {"storage": "2Gi"}
    pv = await site.client.get(PERSISTENT_VOLUMES, "pv-b")
    assert (pv["status"]["phase"], pv["spec"]["claimRef"]["name"]) == ("Bound", "data-db-0")
    changed = {**claims["data-db-0"], "spec": {**claims["data-db-0"]["spec"], "volumeName": "pv-a"}}
    with pytest.raises(ApiError):  # what is bound stays bound
        await site.client.update(PERSISTENT_VOLUME_CLAIMS, changed)
    await site.client.delete(STATEFUL_SETS, "db", "default")
    await site.until(PODS, lambda pods: not pods.list("default"))
    assert len((await site.client.list(PERSISTENT_VOLUME_CLAIMS, "default"))["items"]) == 2
    await site.client.delete(PERSISTENT_VOLUME_CLAIMS, "data-db-0", "default")
    await site.until(PERSISTENT_VOLUMES, lambda pvs: pvs.get("pv-b")["status"]["phase"] == "Released")
