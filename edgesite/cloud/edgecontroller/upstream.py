"""What edges ask and report, carried out at the API, and answered.

    node, nodepatch, podpatch, lease, mirror pods, signing requests     ObjectResp {"Object": ..., "Err": ...}
    pod delete, node update, events, whole statuses                     "OK"
    queries                                                             the object

A query that fails is answered with {"ErrStatus": ...}, but an edge of KubeEdge before v1.13 would store that as if it were the object:
it gets such an answer for its node only, where it helps, and otherwise none, as it expects.

Errors  ApiError of the API goes to the edge; nothing leaves.
Source  KubeEdge v1.12.7, cloud/pkg/edgecontroller/controller/upstream.go.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.edgecontroller.authorize import Answer, NodeRules, fits_token, node_metadata, node_patch, pod_patch
from edgesite.cloud.edgecontroller.downstream import removal_message
from edgesite.cloud.edgecontroller.events import write_event
from edgesite.cloud.edgecontroller.evidence import Evidence
from edgesite.cloud.edgecontroller.objects import typed
from edgesite.cloud.edgecontroller.references import references_of
from edgesite.cloud.edgecontroller.requests import (
    cluster_ca,
    create_mirror_pod,
    create_signing_request,
    query_signing_request,
    services_for_pods,
)
from edgesite.cloud.edgecontroller.statuses import create_or_report_node, pod_reports, report_node, report_pod
from edgesite.cloud.edgecontroller.storage import create_csi_node, report_claim, update_csi_node
from edgesite.kube import json, resources
from edgesite.kube.errors import ApiError, already_exists, bad_request, forbidden, internal
from edgesite.wire import resource
from edgesite.wire.message import OK, InvalidMessage, Message, MessageMaker, Operation, error_content
from edgesite.wire.renewal import RENEW

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Bus
    from edgesite.kube.resources import Resource
    from edgesite.wire.resource import ResourcePath

__all__ = ["Upstream"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Work = Callable[["ResourcePath", Message], Awaitable[Any]]

_QUERIED: Final[Mapping[str, Resource]] = {
    "node": resources.NODES,
    "configmap": resources.CONFIG_MAPS,
    "secret": resources.SECRETS,
    "persistentvolume": resources.PERSISTENT_VOLUMES,
    "persistentvolumeclaim": resources.PERSISTENT_VOLUME_CLAIMS,
    "volumeattachment": next(one for one in resources.BUILTIN if one.plural == "volumeattachments"),
    "lease": resources.LEASES,
    "runtimeclass": resources.RUNTIME_CLASSES,
    "csidriver": resources.CSI_DRIVERS,
    "csinode": resources.CSI_NODES,
}
_REVIEWED: Final[Mapping[str, Resource]] = {
    one.singular_name: one for one in resources.BUILTIN if one.plural in ("tokenreviews", "subjectaccessreviews")
}
_AS_OBJECT_RESP: Final = frozenset(
    {
        ("node", "insert"),
        ("nodepatch", "patch"),
        ("podpatch", "patch"),
        ("lease", "query"),
        ("lease", "insert"),
        ("lease", "update"),
        ("lease", RENEW),
        ("pod", "insert"),
        ("certificatesigningrequest", "insert"),
        ("certificatesigningrequest", "query"),
    }
)
#: what these ask for is in their content, or for every node
_JUDGED_BY_WORK: Final = frozenset(
    {
        ("podstatus", "update"),
        ("pod", "insert"),
        ("certificatesigningrequest", "insert"),
        ("certificatesigningrequest", "query"),
        ("ca.crt", "query"),
        ("tokenreview", "query"),
        ("subjectaccessreview", "query"),
    }
)
_NOT_FINAL: Final = frozenset({"Pending", "Running", "Unknown"})
_RENEWAL_WRITTEN_S: Final = 15.0  #: of our edges' renewals, every 10 s, the API sees every second one
_RENEWALS_KEPT: Final = 20_000
_JUDGED_BY_OBJECT: Final = frozenset({"persistentvolume", "volumeattachment"})


class Upstream:
    """``handle`` takes one message of one node, with the node in front of its resource."""

    def __init__(
        self,
        client: Client,
        rules: NodeRules,
        bus: Bus,
        maker: MessageMaker,
        knows_errors: Callable[[str], bool],
        on_its_way: Callable[[str, str], None],
        monotonic: Callable[[], float],
        log: Log,
        *,
        is_own: Callable[[str], bool],
        lost: Callable[[str, int], None],
    ) -> None:
        self._client = client
        self._rules = rules
        self._bus = bus
        self._maker = maker
        self._knows_errors = knows_errors  #: whether a node understands that a query is answered with an error
        self._on_its_way = on_its_way  #: (node, uid): the node may soon hold what it has asked for
        self._monotonic = monotonic
        self._is_own = is_own
        self._evidence = Evidence(client, is_own, lost, self._remove_pod, log)
        self._renewed: dict[
            str, tuple[float, str]
        ] = {}  # node -> when its lease was written last, and the version since
        self._log = log
        self._works: dict[tuple[str, str], Work] = {
            ("node", "insert"): self._create_node,
            ("node", "update"): self._update_node,
            ("nodepatch", "patch"): self._patch_node,
            ("podpatch", "patch"): self._patch_pod,
            ("pod", "delete"): self._delete_pod,
            ("lease", "insert"): self._create_lease,
            ("lease", "update"): self._update_lease,
            ("lease", RENEW): self._renew_lease,
            ("serviceaccounttoken", "query"): self._create_token,
            ("event", "insert"): self._write_event,
            ("event", "update"): self._write_event,
            ("event", "patch"): self._write_event,
            ("nodestatus", "insert"): self._report_node,
            ("nodestatus", "update"): self._report_node,
            ("podstatus", "update"): self._report_pods,
            ("pod", "insert"): self._create_mirror_pod,
            ("certificatesigningrequest", "insert"): self._create_signing_request,
            ("certificatesigningrequest", "query"): self._query_signing_request,
            ("ca.crt", "query"): self._query_ca,
            ("tokenreview", "query"): self._review,
            ("subjectaccessreview", "query"): self._review,
            ("servicelist", "query"): self._query_services,
            ("csinode", "insert"): self._create_csi_node,
            ("csinode", "update"): self._update_csi_node,
            ("persistentvolumeclaim", "patch"): self._report_claim,
            **{(type_, "query"): self._query for type_ in _QUERIED},
        }

    async def handle(self, message: Message) -> None:
        node = resource.node_of(message.resource)
        path = resource.parse(resource.trim_node(message.resource))
        work = self._works.get((path.type, message.operation))
        if work is None:
            self._log.info("left alone: node=%s operation=%s resource=%s", node, message.operation, message.resource)
            if self._knows_errors(node) and not message.parent_msg_id:
                await self._refuse(node, path, message, bad_request(f"no {message.operation} of {path.type!r} here"))
            return
        try:
            found = OK if await self._is_done(node, path, message) else await work(path, message)
        except ApiError as exc:
            self._log.debug("refused: node=%s resource=%s: %s", node, message.resource, exc)
            await self._refuse(node, path, message, exc)
            with suppress(ApiError):  # it will be refused again
                await self._evidence.look(node, path, message, exc)
        except InvalidMessage as exc:
            await self._refuse(node, path, message, bad_request(str(exc)))
        except Exception:
            self._log.exception("failed: node=%s operation=%s resource=%s", node, message.operation, message.resource)
            await self._refuse(node, path, message, internal("the request could not be carried out"))
        else:
            await self._answer(path, message, found)

    # -- answers -------------------------------------------------------------------------------------------------

    async def _answer(self, path: ResourcePath, request: Message, found: Any) -> None:
        version = ""
        if isinstance(found, dict):
            if path.type not in ("lease", "serviceaccounttoken") and (path.type, request.operation) != (
                "node",
                "insert",
            ):
                version = str((found.get("metadata") or {}).get("resourceVersion") or "")
            if (path.type, request.operation) in _AS_OBJECT_RESP and request.operation != RENEW:
                found = {"Object": found, "Err": None}
        await self._send(request, found, version)

    async def _refuse(self, node: str, path: ResourcePath, request: Message, error: ApiError) -> None:
        content = error_content(error.status())
        if (path.type, request.operation) in _AS_OBJECT_RESP:
            await self._send(request, {"Object": None if request.operation == Operation.QUERY else {}, "Err": content})
        elif self._knows_errors(node) or path.type == "node":
            await self._send(request, content)

    async def _send(self, request: Message, content: Any, version: str = "") -> None:
        answer = self._maker.make(
            "edgecontroller",
            "resource",
            Operation.RESPONSE,
            _answered_resource(request.resource),
            content,
            parent=request.msg_id,
            resource_version=version,
        )
        await self._to_hub(answer)

    async def _to_hub(self, message: Message) -> None:
        try:
            await self._bus.send("cloudhub", message)
        except LookupError:
            return  # the hub restarts; the edge asks again

    # -- authorisation -------------------------------------------------------------------------------------------

    async def _is_done(self, node: str, path: ResourcePath, message: Message) -> bool:
        """Authorise; True if there is nothing left to do: a pod that shall be deleted is gone. Raises ApiError."""
        try:
            await self._authorize(node, path, message)
        except ApiError as exc:
            if exc.reason == "NotFound" and path.type == "pod":
                return True  # to be deleted, or reported about by an old edge
            raise
        return False

    async def _authorize(self, node: str, path: ResourcePath, message: Message) -> None:
        """Raises ApiError Forbidden, or NotFound for a pod that is gone."""
        content = message.object() if path.type in ("serviceaccounttoken", "event") else None
        if (path.type, message.operation) in _JUDGED_BY_WORK:
            return
        answer = self._rules.may(node, path, content)
        if answer is Answer.ASK:
            answer = await self._ask(node, path, content)
        if answer is Answer.NO:
            raise forbidden(path.type, path.name, f"node {node!r} has no part in it")

    async def _ask(self, node: str, path: ResourcePath, content: Any) -> Answer:
        """The cache may be behind: look at the pods as they are."""
        namespace = path.object_namespace
        if path.type in ("pod", "podpatch", "podstatus"):
            pod = await self._client.get(resources.PODS, path.name, namespace)
            return Answer.YES if (pod.get("spec") or {}).get("nodeName") == node else Answer.NO
        if path.type == "serviceaccounttoken":
            bound = content["spec"]["boundObjectRef"]
            pod = await self._client.get(resources.PODS, str(bound["name"]), namespace)
            fits = fits_token(pod, node, path.name, content["spec"])
            return Answer.YES if fits else Answer.NO
        pods = await self._client.list(resources.PODS, namespace, field_selector=f"spec.nodeName={node}")
        wanted = (path.type, path.name)
        return Answer.YES if any(wanted in references_of(pod) for pod in pods.get("items") or ()) else Answer.NO

    # -- works ---------------------------------------------------------------------------------------------------

    async def _query(self, path: ResourcePath, message: Message) -> Object:
        kind = _QUERIED[path.type]
        namespace = path.object_namespace if kind.namespaced else ""
        found = typed(await self._client.get(kind, path.name, namespace), kind)
        node = resource.node_of(message.resource)
        if path.type in _JUDGED_BY_OBJECT and not self._rules.may_have(node, path.type, found):
            raise forbidden(kind.plural, path.name, f"node {node!r} has no part in it", kind.group)
        if path.type != "node":
            self._on_its_way(node, str(found["metadata"].get("uid") or ""))
        metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
        return {**found, "metadata": metadata}  # as it is sent when it changes

    async def _create_node(self, path: ResourcePath, message: Message) -> Object:
        node = message.object()
        node = {**node, "kind": "Node", "apiVersion": "v1"}
        node["metadata"] = {**node_metadata(node.get("metadata") or {}), "name": path.name}
        if self._rules.knows_node(path.name) and await self._is_there(path.name):
            raise already_exists(
                "nodes", path.name
            )  # as every node that comes back hears: much dearer to find out by a write
        return await self._client.create(resources.NODES, node)

    async def _is_there(self, node: str) -> bool:
        """Whether the API has the node at this moment, for the cache may be behind, and not on its way out. Raises ApiError."""
        try:
            found = await self._client.get(resources.NODES, node)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            return False
        return not found["metadata"].get("deletionTimestamp")

    async def _update_node(self, path: ResourcePath, message: Message) -> str:
        patch = {"metadata": node_metadata(message.object().get("metadata") or {})}
        await self._client.patch(resources.NODES, path.name, patch, kind="strategic")
        return OK

    async def _patch_node(self, path: ResourcePath, message: Message) -> Object:
        return await self._client.patch(
            resources.NODES, path.name, node_patch(_patch(message)), kind="strategic", subresource="status"
        )

    async def _patch_pod(self, path: ResourcePath, message: Message) -> Object:
        patch = pod_patch(_patch(message))
        if self._is_own(resource.node_of(message.resource)) and patch.get("status", {}).get("phase") in _NOT_FINAL:
            # An edge that lost its memory of an end has yet to be told: the end is on its way, and it takes that.
            uid = str(patch["metadata"].get("uid") or "")
            if (ended := self._rules.ended_pod(path.object_namespace, path.name, uid)) is not None:
                return dict(ended)
        return await self._client.patch(
            resources.PODS, path.name, patch, path.object_namespace, kind="strategic", subresource="status"
        )

    async def _delete_pod(self, path: ResourcePath, message: Message) -> str:
        """A pod that is gone, or that has another uid by now, is deleted as wanted."""
        grace, uid = _delete_options(message)
        try:
            await self._client.delete(resources.PODS, path.name, path.object_namespace, grace_period_s=grace, uid=uid)
        except ApiError as exc:
            if exc.reason not in ("NotFound", "Conflict"):
                raise
        return OK

    async def _report_node(self, path: ResourcePath, message: Message) -> str:
        write = create_or_report_node if message.operation == Operation.INSERT else report_node
        await write(self._client, path.name, message)
        return OK

    async def _report_pods(self, path: ResourcePath, message: Message) -> str:
        node, namespace = resource.node_of(message.resource), path.object_namespace

        async def remove(name: str, uid: str) -> None:
            await self._remove_pod(node, namespace, name, uid)

        for report in pod_reports(path.name, message):
            pod = resource.ResourcePath(path.namespace, "pod", report.name)
            if not await self._is_done(node, pod, message):
                await report_pod(self._client, namespace, report, remove)
            else:
                await remove(report.name, report.uid)
        return OK

    async def _remove_pod(self, node: str, namespace: str, name: str, uid: str) -> None:
        """Have a pod ended at an edge."""
        await self._to_hub(removal_message(self._maker, node, "pod", namespace, name, uid))

    async def _create_mirror_pod(self, path: ResourcePath, message: Message) -> Object:
        return await create_mirror_pod(self._client, resource.node_of(message.resource), path, message.object())

    async def _create_signing_request(self, path: ResourcePath, message: Message) -> Object:
        return await create_signing_request(self._client, resource.node_of(message.resource), message.object())

    async def _query_signing_request(self, path: ResourcePath, message: Message) -> Object:
        return await query_signing_request(self._client, resource.node_of(message.resource), path.name)

    async def _query_services(self, path: ResourcePath, message: Message) -> Object:
        return await services_for_pods(self._client, path.name)

    async def _create_csi_node(self, path: ResourcePath, message: Message) -> Object:
        return await create_csi_node(self._client, path, message.object())

    async def _update_csi_node(self, path: ResourcePath, message: Message) -> Object:
        return await update_csi_node(self._client, path, message.object())

    async def _report_claim(self, path: ResourcePath, message: Message) -> Object:
        return await report_claim(self._client, path, _patch(message))

    async def _query_ca(self, path: ResourcePath, message: Message) -> str:
        return await cluster_ca(self._client)

    async def _create_lease(self, path: ResourcePath, message: Message) -> Object:
        lease = typed(message.object(), resources.LEASES)
        return await self._client.create(resources.LEASES, lease, path.object_namespace)

    async def _update_lease(self, path: ResourcePath, message: Message) -> Object:
        lease = message.object()
        metadata = lease.get("metadata") or {}
        if metadata.get("name") != path.name or metadata.get("namespace") != path.object_namespace:
            raise bad_request("the lease is not the one of the resource")
        return await self._client.update(resources.LEASES, typed(lease, resources.LEASES))

    async def _renew_lease(self, path: ResourcePath, message: Message) -> Object:
        match message.content:
            case [str(version), str(time)] if version:
                pass
            case _:
                raise InvalidMessage(f"no renewal: {message.content!r:.80}")
        now, (renewed_at, written) = self._monotonic(), self._renewed.get(path.name, (-math.inf, ""))
        if version != written or now - renewed_at >= _RENEWAL_WRITTEN_S:
            patch = {"metadata": {"resourceVersion": version}, "spec": {"renewTime": time}}
            lease = await self._client.patch(resources.LEASES, path.name, patch, path.object_namespace)
            version = str(lease["metadata"].get("resourceVersion") or "")
            self._renewed[path.name] = (now, version)
            while len(self._renewed) > _RENEWALS_KEPT:
                del self._renewed[next(iter(self._renewed))]
        return {"version": version}

    async def _create_token(self, path: ResourcePath, message: Message) -> Object:
        request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", **message.object()}
        return await self._client.create(
            resources.SERVICE_ACCOUNTS, request, path.object_namespace, name=path.name, subresource="token"
        )

    async def _review(self, path: ResourcePath, message: Message) -> Object:
        """Whose token it is, or whether somebody may do something: as nodes of Kubernetes may, edges ask about anybody."""
        kind = _REVIEWED[path.type]
        asked = {"kind": kind.kind, "apiVersion": kind.api_version, "spec": message.object().get("spec") or {}}
        found = await self._client.create(kind, asked)
        return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}, "status": found.get("status") or {}}

    async def _write_event(self, path: ResourcePath, message: Message) -> str:
        await write_event(self._client, path.object_namespace, path.name, message)
        return OK


def _answered_resource(path: str) -> str:
    """A node's whole status is answered as if it were the node."""
    return path.replace("/nodestatus/", "/node/") if "/nodestatus/" in path else path


def _patch(message: Message) -> Any:
    """The patch in a message: JSON text. Raises InvalidMessage."""
    if isinstance(message.content, dict):
        return message.content
    try:
        return json.loads(message.data())
    except json.InvalidJson as exc:
        raise InvalidMessage(f"the patch of {message.resource} is not JSON: {exc}") from exc


def _delete_options(message: Message) -> tuple[int | None, str]:
    """DeleteOptions as an object, or from old edges the uid as text."""
    if isinstance(message.content, str) and not message.content.startswith("{"):
        return 0, message.content
    options = message.object() if message.content is not None else {}
    uid = str((options.get("preconditions") or {}).get("uid") or "")
    grace = options.get("gracePeriodSeconds")
    return (grace if isinstance(grace, int) else None), uid
