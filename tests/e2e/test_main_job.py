"""The main job: an ordinary Deployment becomes running containers under containerd, on one machine, in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from e2e_site import Kubectl, Site, eventually

from edgesite.testing.containerd import BUSYBOX, Containerd

MANIFEST = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data: {{index.html: hello from the edge}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {BUSYBOX}
        command: [/bin/httpd, -f, -v, -p, "8080", -h, /www]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{port: 8080, path: /index.html}}, periodSeconds: 1}}
        resources: {{requests: {{cpu: 10m, memory: 8Mi}}, limits: {{memory: 64Mi}}}}
        volumeMounts: [{{name: www, mountPath: /www}}]
      volumes: [{{name: www, configMap: {{name: web}}}}]
"""


@pytest.fixture
def site(new_site: Callable[..., Site], daemon: Containerd) -> Site:
    return new_site("--cri-endpoint", daemon.endpoint, runtime="cri")


def containers(kubectl: Kubectl) -> dict[str, tuple[str, int]]:
    """Container id and restart count by pod."""
    found: dict[str, tuple[str, int]] = {}
    for pod in kubectl.json("get", "pods", "-l", "app=web")["items"]:
        for one in pod["status"].get("containerStatuses", ()):
            found[pod["metadata"]["name"]] = (one["containerID"], one["restartCount"])
    return found


def fetch(kubectl: Kubectl, ip: str) -> Any:
    from urllib.request import urlopen

    with urlopen(f"http://{ip}:8080/index.html", timeout=5) as answer:
        return answer.read().decode().strip()


def test_a_deployment_runs_survives_kill_9_and_a_new_start_and_goes(site: Site, tmp_path: Any) -> None:
    site.start()
    kubectl = site.kubectl("1.20")
    manifest = tmp_path / "web.yaml"
    manifest.write_text(MANIFEST)

    kubectl("apply", "-f", str(manifest))
    kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    pods = kubectl.json("get", "pods", "-l", "app=web")["items"]
    assert [fetch(kubectl, pod["status"]["podIP"]) for pod in pods] == ["hello from the edge"] * 3
    subsets = eventually(lambda: kubectl.json("get", "endpoints", "web").get("subsets"), "endpoints of the service")
    assert {one["ip"] for one in subsets[0]["addresses"]} == {pod["status"]["podIP"] for pod in pods}
    assert "response:200" in kubectl("logs", pods[0]["metadata"]["name"])

    before = containers(kubectl)
    site.kill()
    assert fetch(kubectl, pods[0]["status"]["podIP"]) == "hello from the edge"  # containers go on meanwhile
    site.start()
    eventually(
        lambda: kubectl.json("get", "deployment", "web")["status"].get("readyReplicas") == 3, "three ready again"
    )
    assert containers(kubectl) == before  # adopted, not restarted

    kubectl("delete", "-f", str(manifest), "--wait")
    eventually(lambda: not kubectl.json("get", "pods", "-l", "app=web")["items"], "the end of the pods")
    site.stop()
    site.start()
    assert kubectl.json("get", "pods", "-A")["items"] == []


def test_a_rolling_update_replaces_pods_and_is_undone(site: Site, tmp_path: Any) -> None:
    site.start()
    kubectl = site.kubectl("1.32")
    kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    first = set(containers(kubectl))

    kubectl("set", "env", "deployment/web", "COLOUR=blue")
    kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    eventually(lambda: len(containers(kubectl)) == 3, "three pods")
    assert not first & set(containers(kubectl))
    assert kubectl("rollout", "history", "deployment/web").count("<none>") == 2

    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    environment = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"][0].get("env")
    assert environment is None
