"""A pod on containerd's bridge whose in-cluster client is led to the node's MetaServer, while the cloud is there, gone, and back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e_roles import Cloud, Edge, nothing_mounted, ready
from e2e_site import eventually, free_port
from test_service_accounts import last, lines
from test_service_accounts import pod as on_host

from edgesite.testing.containerd import Containerd

ADDRESS = "169.254.30.10"
GATE = ("--set", "featureGates.requireAuthorization=true")
SCRIPT = """
import json, time
from kubernetes import client, config
from kubernetes.client.rest import ApiException

def tried(call):
    try:
        found, status, headers = call()
        names = [one.metadata.name for one in found.items] if hasattr(found, "items") else []
        return [status, names, headers.get("x-edgesite-served-from")]
    except ApiException as error:
        return [error.status, json.loads(error.body)["message"]]
    except Exception as error:
        return [type(error).__name__]

while True:
    config.load_incluster_config()
    core = client.CoreV1Api()
    said = {"host": client.Configuration.get_default_copy().host}
    said["seen"] = tried(lambda: core.list_namespaced_config_map_with_http_info("default"))
    said["secrets"] = tried(lambda: core.list_namespaced_secret_with_http_info("default"))
    change = {"data": {"n": str(time.time())}}
    said["write"] = tried(lambda: core.patch_namespaced_config_map_with_http_info("seen", "default", change))
    with open("/said/lines", "a") as file:
        file.write(json.dumps(said) + "\\n")
    time.sleep(0.3)
"""


class Led(Edge):
    """An edge that leads its pods to its MetaServer."""

    def __init__(self, folder: Path, cloud: Cloud, daemon: Containerd) -> None:
        self.at = f"{ADDRESS}:{free_port()}"
        settings = {"enable": "true", "server": f"127.0.0.1:{free_port()}", "dummyServer": self.at}
        settings |= {"podServer": self.at, "offlineTokenMinutes": "10"}
        words = [f"modules.metaManager.metaServer.{name}={value}" for name, value in settings.items()]
        more = [word for one in words for word in ("--set", one)]
        heartbeat = ("--set", "modules.edgeHub.heartbeat=1")
        cri = ("--runtime", "cri", "--cri-endpoint", daemon.endpoint)
        super().__init__(folder, cloud, "led", *cri, *GATE, *heartbeat, *more)


@pytest.fixture
def roles(tmp_path: Path, daemon: Containerd) -> Iterator[tuple[Cloud, Led]]:
    with nothing_mounted(tmp_path), closing(Cloud(tmp_path)) as cloud:
        cloud.start("--set", "modules.dynamicController.enable=true", *GATE)
        with closing(Led(tmp_path, cloud, daemon)) as edge:
            edge.start(cloud.token())
            ready(cloud, "led")
            yield cloud, edge


def pod(said: Path, cloud: Cloud) -> str:
    """On the bridge, and told of nothing but what every pod is told."""
    made: dict[str, Any] = json.loads(on_host("client", said, cloud))
    made["spec"] |= {"hostNetwork": False, "nodeName": "led"}
    (container,) = made["spec"]["containers"]
    container["command"][-1] = SCRIPT
    del container["env"]
    return json.dumps(made)


def test_a_pod_on_the_bridge_is_served_by_its_node(
    roles: tuple[Cloud, Led], daemon: Containerd, tmp_path: Path
) -> None:
    cloud, edge = roles
    kubectl = cloud.kubectl()
    kubectl("create", "configmap", "seen", "--from-literal=n=1")
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "worker", "--verb=get,list,patch", "--resource=configmaps")
    kubectl("create", "rolebinding", "robot", "--role=worker", "--serviceaccount=default:robot")
    said = tmp_path / "said"
    kubectl("apply", "-f", "-", stdin=pod(said, cloud))

    def online() -> dict[str, Any] | None:
        now = last(said)
        return now if now and now["seen"][0] == 200 and now["seen"][2] is None and now["write"][0] == 200 else None

    now = eventually(online, "the API's answers in the pod", 60)
    assert now["host"] == f"https://{edge.at}"
    assert "seen" in now["seen"][1]
    assert now["secrets"][0] == 403
    address = kubectl.json("get", "pod", "client")["status"]["podIP"]
    assert address in daemon.addresses(), "on the bridge"

    cloud.end(signal.SIGKILL)
    edge.said("the connection to the cloud ended")
    count = len(lines(said))
    kept = eventually(lambda: lines(said)[count + 1 :], "the pod's words without a cloud")[0]
    assert kept["seen"] == [200, now["seen"][1], "node-cache"]
    assert kept["write"][0] == 503
    assert "offline" in kept["write"][1]
    assert kept["secrets"][0] == 403

    cloud.start("--set", "modules.dynamicController.enable=true", *GATE)
    eventually(online, "the API's answers again", 60)
    kubectl("delete", "pod", "client", "--timeout=100s")
