"""What edges newer than KubeEdge v1.12 ask besides: mirror pods, serving certificates, the cluster's CA; and our own: services.

    <ns>/pod/<pod>                              insert    the mirror of a static pod          (v1.15)
    default/certificatesigningrequest/<name>    insert, query: a kubelet's serving certificate   (v1.17)
    k8s/ca.crt                                  query     PEM text of the API's CA             (v1.17)
    <ns>/servicelist/<ns>                       query     what the environment of pods tells of services   (ours)

Each but the last two is for the node of the connection alone.

Errors  ApiError Forbidden for what is another's, InvalidMessage for content of another shape, ApiError of the API.
Source  KubeEdge v1.15 and v1.17, cloud/pkg/edgecontroller; Kubernetes: static pods, certificate signing requests.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.edgecontroller.references import claims_of, references_of
from edgesite.kube import resources
from edgesite.kube.errors import ApiError, forbidden, not_found
from edgesite.net import pem
from edgesite.wire.message import InvalidMessage

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.wire.resource import ResourcePath

__all__ = ["cluster_ca", "create_mirror_pod", "create_signing_request", "query_signing_request", "services_for_pods"]

Object = dict[str, Any]
_MIRROR: Final = "kubernetes.io/config.mirror"
_SERVING: Final = "kubernetes.io/kubelet-serving"
_SIGNING_REQUESTS: Final = next(one for one in resources.BUILTIN if one.plural == "certificatesigningrequests")
_ROOT_CA: Final = "kube-root-ca.crt"
_API_SERVICE: Final = ("default", "kubernetes")


async def create_mirror_pod(client: Client, node: str, path: ResourcePath, pod: Object) -> Object:
    """Create the mirror of a static pod of this node. A mirror pod may refer to nothing in the API."""
    metadata = pod.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") != path.name:
        raise InvalidMessage(f"content of {path} is not that pod")
    spec = pod.get("spec") or {}
    if (
        spec.get("nodeName") != node
        or not (metadata.get("annotations") or {}).get(_MIRROR)
        or spec.get("serviceAccountName") not in (None, "")
        or references_of(pod)
        or claims_of(pod)
    ):
        raise forbidden("pods", path.name, f"node {node!r} may create the mirrors of its own static pods only")
    metadata = {**metadata, "namespace": path.object_namespace}
    pod = {**pod, "kind": "Pod", "apiVersion": "v1", "metadata": metadata}
    return await client.create(resources.PODS, pod)


async def create_signing_request(client: Client, node: str, request: Object) -> Object:
    """Ask for a serving certificate of this node."""
    _check_signing_request(node, request)
    asker = {"username": f"system:node:{node}", "groups": ["system:nodes", "system:authenticated"]}
    spec = {**request["spec"], **asker}  # a cluster's API server says there whose the account is that creates it
    request = {**request, "spec": spec, "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1"}
    return await client.create(_SIGNING_REQUESTS, request)


async def query_signing_request(client: Client, node: str, name: str) -> Object:
    found = await client.get(_SIGNING_REQUESTS, name)
    _check_signing_request(node, found)
    return found


def _check_signing_request(node: str, request: Object) -> None:
    spec = request.get("spec")
    text = spec.get("request") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(text, str):
        raise InvalidMessage("a signing request without its request")
    try:
        subject = pem.csr_subject(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as exc:
        raise InvalidMessage(f"the certificate request cannot be read: {exc}") from exc
    name = str((request.get("metadata") or {}).get("name") or "")
    expected = {("O", "system:nodes"), ("CN", f"system:node:{node}")}
    if spec.get("signerName") != _SERVING or set(subject) != expected:
        why = f"node {node!r} may ask for its own serving certificate only"
        raise forbidden(_SIGNING_REQUESTS.plural, name, why, _SIGNING_REQUESTS.group)


async def cluster_ca(client: Client) -> str:
    """Return the CA of the API server as PEM text: every cluster publishes it in each namespace. Raises ApiError."""
    for namespace in ("kube-system", "default"):
        try:
            found = await client.get(resources.CONFIG_MAPS, _ROOT_CA, namespace)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            continue
        if text := (found.get("data") or {}).get("ca.crt"):
            return str(text)
    raise not_found("configmaps", _ROOT_CA)


async def services_for_pods(client: Client, namespace: str) -> Object:
    """Return the services whose addresses pods of a namespace find in their environment: its own, and that of the API.

    An object named after the namespace, of no more than names, addresses and ports; without a kind, so that no edge takes it for one
    of the API. Raises ApiError.
    """
    found = (await client.list(resources.SERVICES, namespace)).get("items") or []
    if namespace != _API_SERVICE[0]:
        try:
            found.append(await client.get(resources.SERVICES, _API_SERVICE[1], _API_SERVICE[0]))
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
    items = sorted(filter(None, map(_address_of, found)), key=lambda one: (one["namespace"], one["name"]))
    return {"metadata": {"name": namespace, "namespace": namespace}, "items": items}


def _address_of(service: Object) -> Object | None:
    """None for a service without an address of its own."""
    spec, metadata = service.get("spec") or {}, service["metadata"]
    if spec.get("clusterIP") in (None, "", "None"):
        return None
    ports = [
        {name: one[name] for name in ("name", "port", "protocol") if one.get(name)} for one in spec.get("ports") or ()
    ]
    return {
        "name": metadata["name"],
        "namespace": metadata.get("namespace") or "",
        "clusterIP": spec["clusterIP"],
        "ports": ports,
    }
