"""Applications of KubeEdge's MetaServers, turned into requests to the API and watches, and answered in their form.

What a watch sees is sent as objects, through the reliable delivery of the hub: the edge stores and acknowledges them. KubeEdge's v1.12 never says that
a watch is over; v1.13 and later tell which ones live (``watchapp/sync``), and the others end.

A write that its edge has given up on is refused: v1.12 sends what was asked while it was offline after all, which its callers were
told had failed.

Errors  None leave: every failure is in the answer.
State   The watches of each node, bounded.
Source  KubeEdge v1.12.7, cloud/pkg/dynamiccontroller; v1.13 for watchapp/sync, v1.15 for plain paths. Recorded between its programs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.dynamiccontroller.watches import row_of
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.wire import application, resource
from edgesite.wire.application import Application, Place
from edgesite.wire.delivery import version_number
from edgesite.wire.message import InvalidMessage, Message, MessageMaker
from edgesite.wire.metaserver import ApiAnswer, ApiRequest, Events, WatchRef, WatchRequest

if TYPE_CHECKING:
    import logging

    from edgesite.client import Client
    from edgesite.cloud.dynamiccontroller.feed import Subscription
    from edgesite.cloud.dynamiccontroller.requests import Requests
    from edgesite.cloud.dynamiccontroller.watches import Watches

    Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

__all__ = ["Applications"]

WATCHES_OF_NODE: Final = 256
AWAY_S: Final = 24 * 3600.0  #: that a node may be away before its watches end
_PAGE: Final = 500
_OPERATIONS: Final = {"ADDED": "insert", "DELETED": "delete", "LEFT": "delete"}
_METHODS: Final = {
    "create": "POST",
    "update": "PUT",
    "updatestatus": "PUT",
    "delete": "DELETE",
    "get": "GET",
    "list": "GET",
}
_READS: Final = frozenset({"get", "list"})
Content = Mapping[str, Any]


class _Watch:
    """One watch of a KubeEdge edge."""

    __slots__ = ("place", "subscription")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.subscription: Subscription | None = None  # None: it is being begun

    def end(self) -> None:
        if self.subscription is not None:
            self.subscription.feed.unsubscribe(self.subscription)


class Applications:
    """``send`` gives a message to the hub."""

    def __init__(
        self,
        requests: Requests,
        watches: Watches,
        client: Client,
        maker: MessageMaker,
        send: Callable[[Message], Awaitable[None]],
        send_soon: Callable[[Message], None],
        log: Log,
    ) -> None:
        self._requests = requests
        self._watches = watches
        self._client = client.named("dynamiccontroller")
        self._maker = maker
        self._send = send
        self._send_soon = send_soon
        self._log = log
        self._of_node: dict[str, dict[str, _Watch]] = {}
        self._away: dict[str, float] = {}  # since when a node with watches is not connected

    def came(self, node: str) -> None:
        self._away.pop(node, None)

    def left(self, node: str, now: float) -> None:
        """Its watches live on: v1.12 does not ask for them again. But not for ever; the node may have been deleted."""
        if node in self._of_node:
            self._away[node] = now
        for one in [one for one, since in self._away.items() if now - since >= AWAY_S]:
            del self._away[one]
            for watch in self._of_node.pop(one, {}).values():
                watch.end()

    async def take(self, node: str, path: str, message: Message) -> None:
        """Answer a message. Raises InvalidMessage for one that holds no Application."""
        content = message.object()
        if path == application.SYNC:
            await self._reply(node, message, application.SYNC, await self._sync(node, content))
            return
        await self._reply(node, message, application.ANSWERED, await self._answer(node, message.msg_id, content))

    async def refuse(self, node: str, message: Message, error: ApiError) -> None:
        """Answer a message that is not looked at further."""
        try:
            content = message.object()
        except InvalidMessage:
            content = {}
        answer = application.rejected(content, error.status())
        await self._reply(node, message, application.ANSWERED, answer)

    async def _reply(self, node: str, message: Message, path: str, content: Any) -> None:
        await self._send(
            self._maker.make(
                "dynamiccontroller",
                "resource",
                application.ANSWER,
                resource.add_node(node, path),
                content,
                parent=message.msg_id,
            )
        )

    async def _answer(self, node: str, id_: str, content: Content) -> dict[str, Any]:
        try:
            asked = Application.of(content)
            if asked.verb == "watch":
                await self._watch(node, asked)
                return application.answered(content, b"")
            if asked.verb not in _READS and application.is_late(content):
                return application.rejected(content, ApiError(504, "Timeout", "its caller has given up on it").status())
            answer = await self._requests.answer(node, _request(id_, asked))
        except ApiError as exc:
            return application.rejected(content, exc.status())
        except InvalidMessage as exc:
            return application.rejected(content, None, str(exc))
        return _result(content, asked, answer)

    # -- watches -------------------------------------------------------------------------------------------------

    async def _watch(self, node: str, asked: Application) -> None:
        """Tell a node of what there is, then of what happens. Raises ApiError, InvalidMessage."""
        place = application.place_of(asked.key)
        if place.path:
            raise InvalidMessage("a watch is of a resource")
        review = {"group": place.group, "version": place.version, "resource": place.resource}
        review |= {"namespace": place.namespace, "name": place.name}
        fields = str(asked.options().get("fieldSelector") or "")
        await self._requests.may_watch(node, asked.token, review, fields)
        mine = self._of_node.setdefault(node, {})
        old = mine.pop(asked.id, None)
        if old is not None:
            old.end()
        if len(mine) >= WATCHES_OF_NODE:
            raise ApiError(429, "TooManyRequests", f"this node has {len(mine)} watches", None, 1)
        watch = mine[asked.id] = _Watch(place)
        try:
            await self._begin(node, watch, asked.options())
        finally:
            if watch.subscription is None and mine.get(asked.id) is watch:
                del mine[asked.id]

    async def _begin(self, node: str, watch: _Watch, options: Mapping[str, Any]) -> None:
        place = watch.place
        labels, fields = str(options.get("labelSelector") or ""), str(options.get("fieldSelector") or "")
        if place.name:
            fields = f"{fields},metadata.name={place.name}" if fields else f"metadata.name={place.name}"
        row = row_of(place.group, place.version, place.resource)
        objects: list[dict[str, Any]] = []
        revision = ""
        token = ""
        while True:
            page = await self._client.list(
                row, place.namespace, label_selector=labels, field_selector=fields, limit=_PAGE, continue_token=token
            )
            objects += page.get("items") or []
            revision, token = page["metadata"]["resourceVersion"], page["metadata"].get("continue") or ""
            if not token:
                break
        kind = str(page.get("kind") or "").removesuffix("List")
        feed = self._watches.feed(place.group, place.version, place.resource, version_number(revision))
        ref = WatchRef("", 0)
        wanted = WatchRequest(
            ref, place.group, place.version, place.resource, place.namespace, labels, fields, version_number(revision)
        )

        def tell(events: Events) -> None:
            for type_, _, text in events.events:
                self._tell(node, place, _OPERATIONS.get(type_, "update"), json.loads(text))
            if events.error is not None:
                self._log.info("a watch of node %s ended: %s", node, events.error.get("message"))
            elif watch.subscription is not None:
                watch.subscription.credit(events.ref.number)

        for obj in objects:
            typed = {"apiVersion": page.get("apiVersion"), "kind": kind, **obj}
            self._tell(node, place, "insert", typed)
        watch.subscription = await feed.subscribe(wanted, tell)
        watch.subscription.pump()

    def _tell(self, node: str, place: Place, operation: str, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        word = application.kind_word(place.resource)
        path = resource.build(str(metadata.get("namespace") or ""), word, metadata["name"], node=node)
        version = str(metadata.get("resourceVersion") or "")
        self._send_soon(
            self._maker.make("dynamiccontroller", "resource", operation, path, obj, resource_version=version)
        )

    async def _sync(self, node: str, content: Content) -> dict[str, Any]:
        """End the watches that the edge does not tell of, begin those that are lacking; returns those that cannot be."""
        mine = self._of_node.setdefault(node, {})
        for id_ in [one for one in mine if one not in content]:
            mine.pop(id_).end()
        failed = {}
        for id_, one in content.items():
            if id_ in mine or not isinstance(one, dict):
                continue
            answer = await self._answer(node, id_, {**one, "Verb": "watch"})
            if answer.get("Status") != "Approved":
                failed[id_] = answer
        return failed


def _request(id_: str, asked: Application) -> ApiRequest:
    """The request that an Application stands for. Raises InvalidMessage."""
    place, options = application.place_of(asked.key), asked.options()
    subresource = asked.subresource
    method, body, query = _METHODS.get(asked.verb, ""), asked.body, application.query_of(options)
    headers = {"accept": "application/json", "user-agent": "dynamiccontroller"}
    if asked.token:
        headers["authorization"] = asked.token
    if asked.verb == "patch":
        method, body, headers["content-type"] = "PATCH", _patch(options), str(options.get("PatchType") or "")
        parts = options.get("Subresources") or [""]
        subresource = subresource or str(parts[0])
        inner = options.get("Options")
        query = application.query_of(inner if isinstance(inner, dict) else {})
    elif asked.verb == "updatestatus":
        subresource = "status"
    elif asked.verb == "delete":
        body = json.dumps({**options, "kind": "DeleteOptions", "apiVersion": "v1"})
        query = ""
    elif asked.verb in _READS:
        query = application.query_of(options, without=("watch",))
        body = b""
    if not method:
        raise InvalidMessage(f"unknown verb {asked.verb!r:.40}")
    if place.path and asked.verb != "get":
        raise InvalidMessage("a plain path is only read")
    if not place.path and asked.verb not in ("list", "create") and not place.name:
        raise InvalidMessage(f"{asked.verb} needs a name")
    # A new object comes by the key of its collection.
    if asked.verb == "create" and not subresource:
        place = Place(place.group, place.version, place.resource, place.namespace)
    return ApiRequest(id_, method, place.url(subresource) + query, headers, body)


def _patch(options: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(options.get("Data") or ""), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f"the patch is no base64: {exc}") from exc


def _result(content: Content, asked: Application, answer: ApiAnswer) -> dict[str, Any]:
    if answer.status < 400:
        return application.answered(content, b"" if asked.verb == "delete" else answer.body)
    try:
        status = json.loads(answer.body)
    except json.InvalidJson:
        status = None
    if not isinstance(status, dict) or asked.verb == "list":
        # KubeEdge's cloud tells of lists that fail in words alone.
        words = status.get("message") if isinstance(status, dict) else answer.body.decode("utf-8", "replace")
        return application.rejected(content, None, f"{words}")
    return application.rejected(content, status)
