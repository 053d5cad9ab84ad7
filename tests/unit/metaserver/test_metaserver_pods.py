"""What pods are told of the API where the settings lead them to MetaServer."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.edge.edged.clusterfacts import ClusterFacts
from edgesite.edge.edged.serviceenv import api_service, service_environment
from edgesite.net.real import RealClock

CLUSTER = {
    "name": "kubernetes",
    "namespace": "default",
    "clusterIP": "10.96.0.1",
    "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
}
WEB = {"name": "web", "namespace": "default", "clusterIP": "10.96.0.7", "ports": [{"port": 80}]}


def settings(**more: Any) -> dict[str, Any]:
    return {"modules": {"metaManager": {"metaServer": {"enable": True, **more}}}}


class Objects:
    """What the cloud answers."""

    async def newest(self, *_: str) -> dict[str, Any]:
        return {"items": [CLUSTER, WEB]}


@pytest.mark.anyio
async def test_pods_are_led_to_the_node() -> None:
    import anyio

    api = api_service(settings(podServer="169.254.30.10:10550"))
    async with anyio.create_task_group() as tasks:
        clock = RealClock()
        facts = ClusterFacts(Objects(), tasks.start_soon, clock, api)  # type: ignore[arg-type]
        found = await facts.services("default", clock.monotonic())
        tasks.cancel_scope.cancel()
    told = service_environment(found, "default", links=True)
    assert told["KUBERNETES_SERVICE_HOST"] == "169.254.30.10"
    assert told["KUBERNETES_SERVICE_PORT"] == told["KUBERNETES_SERVICE_PORT_HTTPS"] == "10550"
    assert told["KUBERNETES_PORT"] == "tcp://169.254.30.10:10550"
    assert told["WEB_SERVICE_HOST"] == "10.96.0.7", "others are as they were"


def test_without_an_address_they_are_told_of_the_cluster() -> None:
    assert api_service(settings()) is None
    assert api_service(settings(podServer="10.0.0.1:1") | {"modules": {}}) is None
    assert (
        api_service({"modules": {"metaManager": {"metaServer": {"enable": False, "podServer": "10.0.0.1:1"}}}}) is None
    )
    found = api_service(settings(podServer="https://[fd00::1]:10550"))
    assert found is not None
    assert found["clusterIP"] == "fd00::1"
