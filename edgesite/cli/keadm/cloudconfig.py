"""cloudcore.yaml as ``keadm init`` writes it, and the kubeconfig that it names.

``--set`` speaks of the values of KubeEdge's chart: those of ``cloudCore.modules`` are settings of cloudcore.yaml by the same names.

Errors  KeadmError.
Source  KubeEdge v1.12.7, manifests/charts/cloudcore (values).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.progress import Progress

__all__ = ["CloudWishes", "cloud_document", "profile_settings", "settings_of_chart", "whole_kubeconfig"]

_CHART: Final = "cloudCore."
_OF_CLUSTER: Final = frozenset({"image", "replicaCount", "hostNetWork", "labels", "annotations", "affinity", "tolerations", "nodeSelector",
                                "resources", "securityContext", "service", "ingress"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class CloudWishes:
    """What the flags of init say."""

    advertise: Sequence[str]
    names: Sequence[str] = ()
    kubeconfig: str = ""  #: of a cluster; "": an API of our own


def cloud_document(base: dict[str, Any], wishes: CloudWishes) -> dict[str, Any]:
    """Return the whole file as plain data; ``base`` is what was there."""
    document = {"apiVersion": "cloudcore.config.kubeedge.io/v1alpha1", "kind": "CloudCore"} | base
    api = dict(document.get("kubeAPIConfig") or {})
    document["kubeAPIConfig"] = api | {"kubeConfig": wishes.kubeconfig}
    modules = dict(document.get("modules") or {})
    hub = dict(modules.get("cloudHub") or {})
    if wishes.advertise:
        hub["advertiseAddress"] = list(wishes.advertise)
    if wishes.names:
        hub["dnsNames"] = list(wishes.names)
    document["modules"] = modules | {"cloudHub": {"enable": True} | hub}
    return document


def settings_of_chart(sets: Iterable[str], progress: Progress) -> list[str]:
    """Those of ``--set`` that mean something for a unit; the others are named in a warning."""
    found = []
    for one in (part for text in sets for part in text.split(",") if part):
        name = one.partition("=")[0]
        rest = one.removeprefix(_CHART)
        if name.startswith(f"{_CHART}modules."):
            found.append(rest)
        elif name.startswith("iptablesManager.mode"):
            found.append(f"modules.{one}")
        elif name.startswith(("modules.", "kubeAPIConfig.", "commonConfig.")):
            found.append(one)
        elif rest.partition(".")[0] in _OF_CLUSTER or not name.startswith(_CHART):
            progress.warn(f"--set {name} has no effect: cloudcore runs as a unit of this host, not as a chart's pod")
        else:
            raise KeadmError(f"--set {name}: no such value")
    return found


def profile_settings(text: str, progress: Progress) -> list[str]:
    """Settings that ``--profile KEY=VALUE`` stands for. Raises KeadmError."""
    if not text:
        return []
    key, _, value = text.partition("=")
    if key == "iptablesmgr":
        mode = value or "external"
        if mode not in ("internal", "external"):
            raise KeadmError(f"--profile iptablesmgr={mode}: internal or external")
        return [f"modules.iptablesManager.mode={mode}"]
    if key in ("version", "controllermanager"):
        progress.warn(f"--profile {text} has no effect: the program on this host is used")
        return []
    raise KeadmError(f"--profile {text}: iptablesmgr, version and controllermanager are known here")


def whole_kubeconfig(path: Path) -> bytes:
    """The chosen context of a kubeconfig with the files that it refers to inside, so that another user may read it. Raises KeadmError."""
    import yaml

    from edgesite.client.kubeconfig import BadKubeconfig, load

    try:
        access = load(path)
    except BadKubeconfig as exc:
        raise KeadmError(f"{path}: {exc}") from None
    host = f"[{access.host}]" if ":" in access.host else access.host
    cluster: dict[str, Any] = {"server": f"{'https' if access.tls else 'http'}://{host}:{access.port}{access.path}"}
    user: dict[str, Any] = {}
    for place, name, pem in (
        (cluster, "certificate-authority-data", access.ca),
        (user, "client-certificate-data", access.certificate),
        (user, "client-key-data", access.key),
    ):
        if pem:
            place[name] = base64.b64encode(pem).decode()
    if not access.verify:
        cluster["insecure-skip-tls-verify"] = True
    if access.server_name:
        cluster["tls-server-name"] = access.server_name
    if access.token:
        user["token"] = access.token
    if access.token_file:
        user["tokenFile"] = str(access.token_file)
    if access.basic:
        user["username"], _, user["password"] = access.basic.partition(":")
    name = "cluster"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": "cloudcore", "user": user}],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": "cloudcore", "namespace": access.namespace}}
            ],
            "current-context": name,
        }
    ).encode()
