"""``edgesite up --demo``: applies a sample Deployment with a ConfigMap and a Service, makes a virtual thermostat, and shows nodes, pods and it live.

On a terminal the picture is redrawn in place; in a pipe each change is one line. What was applied stays: a second start
finds everything as it was.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cli.demo_device import add_thermostat, device_text, hints
from edgesite.cli.ready import is_ready, say_when_ready, site_client
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, DEPLOYMENTS, DEVICES, NODES, PODS, SERVICES

if TYPE_CHECKING:
    from edgesite.client.client import Client
    from edgesite.kube.resources import Resource
    from edgesite.runtime.site import Site

__all__ = ["demo"]

_NAMESPACE: Final = "default"
_LABELS: Final = {"app": "hello"}
#: Prints its greeting for ever; serves the ConfigMap's file too where the image or host has busybox.
_SCRIPT: Final = (
    "command -v busybox >/dev/null && busybox httpd -f -p 8080 -h /etc/hello & "
    'while true; do echo "$GREETING from $POD on $NODE"; sleep 10; done'
)
_OBJECTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (
        "configmaps",
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "hello", "namespace": _NAMESPACE},
            "data": {"greeting": "Hello", "index.html": "<h1>Hello from the edge</h1>\n"},
        },
    ),
    (
        "services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hello", "namespace": _NAMESPACE},
            "spec": {"selector": _LABELS, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        },
    ),
    (
        "deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "hello", "namespace": _NAMESPACE},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": _LABELS},
                "template": {
                    "metadata": {"labels": _LABELS},
                    "spec": {
                        "terminationGracePeriodSeconds": 2,
                        "containers": [
                            {
                                "name": "hello",
                                "image": "busybox:1.36",
                                "imagePullPolicy": "IfNotPresent",
                                "command": ["/bin/sh", "-c", _SCRIPT],
                                "env": [
                                    {
                                        "name": "GREETING",
                                        "valueFrom": {"configMapKeyRef": {"name": "hello", "key": "greeting"}},
                                    },
                                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                                ],
                                "volumeMounts": [{"name": "pages", "mountPath": "/etc/hello"}],
                                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
                            }
                        ],
                        "volumes": [{"name": "pages", "configMap": {"name": "hello"}}],
                    },
                },
            },
        },
    ),
)
_RESOURCES: Final[Mapping[str, Resource]] = {
    "configmaps": CONFIG_MAPS,
    "services": SERVICES,
    "deployments": DEPLOYMENTS,
}


async def demo(site: Site) -> None:
    """Runs beside the roles until the site stops."""
    await say_when_ready(site)
    client = (await site_client(site)).named("edgesite-demo")
    for plural, obj in _OBJECTS:
        await client.patch(
            _RESOURCES[plural],
            obj["metadata"]["name"],
            obj,
            _NAMESPACE,
            kind="apply",
            field_manager="edgesite-demo",
            force=True,
        )
    resources = {"NODE": NODES, "DEPLOYMENT": DEPLOYMENTS, "POD": PODS}
    if site.plan.edges:
        await add_thermostat(client, site.plan.edges[0].node_name)
        resources["DEVICE"] = DEVICES
    api = site.plan.api
    assert api is not None
    kubectl = f"kubectl --kubeconfig {shlex.quote(api.adminKubeconfig)}"
    async with anyio.create_task_group() as tasks:
        view = _View([f"{kubectl} get pods -o wide", *(hints(kubectl) if "DEVICE" in resources else ())])
        for title, resource in resources.items():
            tasks.start_soon(_follow, client, resource, title, view)


async def _follow(client: Client, resource: Resource, title: str, view: _View) -> None:
    while True:
        try:
            async with client.watch(resource, "" if resource is NODES else _NAMESPACE) as events:
                async for event in events:
                    if event.type != "BOOKMARK":
                        view.show(title, event.object, gone=event.type == "DELETED")
        except ApiError as exc:
            view.say(f"{title.lower()}s: {exc.message}; watching again")
        await anyio.sleep(1)
        view.forget(title)


class _View:
    """The picture: one line per object."""

    def __init__(self, hints: Sequence[str]) -> None:
        self._rows: dict[tuple[str, str], str] = {}
        self._hints = hints
        self._drawn = 0
        self._live = sys.stdout.isatty()

    def show(self, title: str, obj: dict[str, Any], *, gone: bool) -> None:
        key = (title, obj["metadata"]["name"])
        text = "gone" if gone else _TEXTS[title](obj)
        if self._rows.get(key) == text:
            return
        if gone:
            self._rows.pop(key, None)
        else:
            self._rows[key] = text
        if self._live:
            self._draw()
        else:
            print(f"{title.lower():<11}{key[1]:<32}{text}", flush=True)

    def forget(self, title: str) -> None:
        self._rows = {key: text for key, text in self._rows.items() if key[0] != title}

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        order = {title: index for index, title in enumerate(_TEXTS)}
        lines = [
            f"{title.lower():<11}{name:<32}{text}"
            for (title, name), text in sorted(self._rows.items(), key=lambda row: (order[row[0][0]], row[0][1]))
        ]
        lines += [
            "",
            "try:",
            *(f"  {one}" for one in self._hints),
            "",
            "Ctrl-C stops the site; the next start finds everything as it was.",
        ]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self._drawn = len(lines)


def _node_text(obj: dict[str, Any]) -> str:
    info = (obj.get("status") or {}).get("nodeInfo") or {}
    return f"{'Ready' if is_ready(obj) else 'NotReady':<18}{info.get('containerRuntimeVersion', '')}"


def _deployment_text(obj: dict[str, Any]) -> str:
    status = obj.get("status") or {}
    return f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)} ready"


def _pod_text(obj: dict[str, Any]) -> str:
    status = obj.get("status") or {}
    containers = status.get("containerStatuses") or []
    word = str(status.get("phase", "Unknown"))
    for one in containers:
        waiting = (one.get("state") or {}).get("waiting") or {}
        word = waiting.get("reason") or word
    if obj["metadata"].get("deletionTimestamp"):
        word = "Terminating"
    restarts = sum(one.get("restartCount", 0) for one in containers)
    return f"{word:<18}restarts {restarts}  ip {status.get('podIP', '-')}  node {(obj.get('spec') or {}).get('nodeName', '-')}"


_TEXTS: Final = {"NODE": _node_text, "DEPLOYMENT": _deployment_text, "POD": _pod_text, "DEVICE": device_text}
