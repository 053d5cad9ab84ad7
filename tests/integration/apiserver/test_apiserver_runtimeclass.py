"""Runtime classes: what they cost and where they are becomes part of the pods that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apiserver_site import site_at

pytestmark = pytest.mark.anyio
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
PODS = "/api/v1/namespaces/default/pods"
TOLERATION = {"key": "sandboxed", "operator": "Exists", "effect": "NoSchedule"}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "i"}], **spec}}


async def test_pods_get_overhead_and_placement_of_their_class(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        scheduling = {"nodeSelector": {"sandbox": "kata"}, "tolerations": [TOLERATION]}
        kata = {"metadata": {"name": "kata"}, "handler": "kata-qemu", "scheduling": scheduling}
        kata["overhead"] = {"podFixed": {"cpu": "250m", "memory": "120Mi"}}
        assert (await site.post(CLASSES, kata)).status == 201
        made = (await site.post(PODS, pod("a", runtimeClassName="kata", nodeSelector={"disk": "ssd"}))).obj
        assert made["spec"]["overhead"] == {"cpu": "250m", "memory": "120Mi"}
        assert made["spec"]["nodeSelector"] == {"disk": "ssd", "sandbox": "kata"}
        assert TOLERATION in made["spec"]["tolerations"]
        again = await site.post(PODS, pod("b", runtimeClassName="kata", overhead={"cpu": "0.25", "memory": "120Mi"}))
        assert again.status == 201, "the same amounts may be said"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"runtimeClassName": "none"}, 'RuntimeClass "none" not found'),
        ({"overhead": {"cpu": "1"}}, "Pod Overhead set without corresponding RuntimeClass"),
        ({"runtimeClassName": "plain", "overhead": {"cpu": "1"}}, "Pod's Overhead doesn't match"),
        ({"runtimeClassName": "plain", "nodeSelector": {"sandbox": "other"}}, "conflict"),
    ],
)
async def test_what_does_not_fit_a_class_is_refused(tmp_path: Path, spec: dict[str, Any], why: str) -> None:
    async with site_at(tmp_path) as site:
        plain = {"metadata": {"name": "plain"}, "handler": "runc", "scheduling": {"nodeSelector": {"sandbox": "no"}}}
        assert (await site.post(CLASSES, plain)).status == 201
        answer = await site.post(PODS, pod("a", **spec))
        assert (answer.status, answer.obj["reason"]) == (403, "Forbidden")
        assert why in answer.obj["message"]
