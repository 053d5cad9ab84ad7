"""The module ``dynamiccontroller``: what the MetaServers of edges ask of the API, and what they watch there.

    bus: module dynamiccontroller ──> requests of our edges ──> `Requests` ──> API
                                  ──> watches of our edges  ──> `Watches` ──> one `Feed` a kind ──> API
                                  ──> Applications of KubeEdge's edges ──> `Applications`

Off by default, as in KubeEdge: without ``requireAuthorization`` an edge does here what the controller may do.

Source  KubeEdge v1.12.7, cloud/pkg/dynamiccontroller (module, messages); our own protocol: `edgesite.wire.metaserver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Gauge

from edgesite.client import CallerTransport, Client
from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.dynamiccontroller.applications import Applications
from edgesite.cloud.dynamiccontroller.requests import Requests
from edgesite.cloud.dynamiccontroller.watches import Watches
from edgesite.kube.errors import ApiError
from edgesite.wire import metaserver, resource
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, error_content
from edgesite.wire.metaserver import ApiRequest, WatchRef, WatchRequest

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Context, Section

__all__ = ["GATE", "DynamicController"]

GATE: Final = "requireAuthorization"
_OF_NODE: Final = 256  #: requests of one node under way
_HUB: Final = "cloudhub"


class DynamicController:
    """See the module docstring."""

    name: ClassVar[str] = "dynamiccontroller"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = "modules.dynamicController"

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        return bool((settings.get("modules", {}).get("dynamicController") or {}).get("enable"))

    async def run(self, ctx: Context) -> None:
        client = await service(ctx, Client)
        callers = await service(ctx, CallerTransport)
        require_token = bool((ctx.settings.get("featureGates") or {}).get(GATE))
        if not require_token:
            ctx.log.warning(
                "feature gate %s is off: who reaches the MetaServer of an edge may do what this controller may", GATE
            )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(while_provided, ctx, Client, client)
            run = _Run(ctx, tasks, client, callers, require_token)
            inbox = ctx.bus.join("dynamiccontroller", "dynamiccontroller")
            self._metrics = self._metrics or _Metrics(ctx.metrics)
            self._metrics.watches.set_function(lambda: float(len(run.watches)))
            self._metrics.feeds.set_function(lambda: float(run.watches.feeds))
            tasks.start_soon(run.watches.run)
            ctx.ready()
            async for message in inbox:
                run.take(message)


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_dynamiccontroller"
        self.watches = Gauge(f"{name}_watches", "Watches of edges of ours", registry=registry)
        self.feeds = Gauge(f"{name}_feeds", "Kinds that are watched at the API for edges", registry=registry)


class _Run:
    """One run of the module."""

    def __init__(
        self, ctx: Context, tasks: TaskGroup, client: Client, callers: CallerTransport, require_token: bool
    ) -> None:
        self._ctx = ctx
        self._tasks = tasks
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._under_way: dict[str, int] = {}
        self._requests = Requests(
            client,
            callers,
            ctx.clock,
            self._maker.new_id(),
            require_token=require_token,
            impersonate_nodes=bool(ctx.config.get("impersonateNodes")),
            log=ctx.log,
        )
        self.watches = Watches(client, ctx.clock, ctx.random, tasks, self._tell, ctx.log)
        self._applications = Applications(
            self._requests, self.watches, client, self._maker, self._send, self._send_soon, ctx.log
        )

    def take(self, message: Message) -> None:
        """Begin to work on a message, unless its node has too much under way already."""
        node = resource.node_of(message.resource)
        if message.source == "cloudhub":
            if self._is_connected(node):
                self._applications.came(node)
            elif message.operation == Operation.DISCONNECTED:
                self.watches.node_gone(node)
                self._applications.left(node, self._ctx.clock.monotonic())
            return
        path = resource.trim_node(message.resource)
        try:
            if path == metaserver.CREDIT:
                self.watches.credit(node, WatchRef.of(message.object()))
                return
            if path == metaserver.STOP:
                self.watches.stop(node, WatchRef.of(message.object()))
                return
            if path == metaserver.WATCH:
                self.watches.linked(node, WatchRef.of(message.object()).link)
        except InvalidMessage as exc:
            self._ctx.log.warning("refused: node=%s resource=%s: %s", node, path, exc)
            return
        if self._under_way.get(node, 0) >= _OF_NODE:
            busy = ApiError(429, "TooManyRequests", "this node has too many requests under way", None, 1)
            self._tasks.start_soon(self._refuse, message, busy)
            return
        self._under_way[node] = self._under_way.get(node, 0) + 1
        self._tasks.start_soon(self._work, node, path, message)

    def _is_connected(self, node: str) -> bool:
        nodes = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        return nodes is not None and node in nodes.nodes()

    async def _work(self, node: str, path: str, message: Message) -> None:
        try:
            await self._answer(node, path, message)
        except InvalidMessage as exc:
            self._ctx.log.warning("refused: node=%s resource=%s: %s", node, path, exc)
            await self._refuse(message, ApiError(400, "BadRequest", str(exc)))
        except ApiError as exc:
            await self._refuse(message, exc)
        finally:
            left = self._under_way[node] - 1
            if left:
                self._under_way[node] = left
            else:
                del self._under_way[node]

    async def _answer(self, node: str, path: str, message: Message) -> None:
        """Raises InvalidMessage, ApiError."""
        if path == metaserver.API:
            request = ApiRequest.of(message.object())
            answer = await self._requests.answer(node, request)
            await self._reply(message, answer.content())
        elif path == metaserver.WATCH:
            wanted = WatchRequest.of(message.object())
            review = {"group": wanted.group, "version": wanted.version, "resource": wanted.resource}
            await self._requests.may_watch(node, wanted.token, {**review, "namespace": wanted.namespace}, wanted.fields)
            await self.watches.begin(node, wanted)
            await self._reply(message, {})
        else:
            await self._applications.take(node, path, message)

    # -- to the edges --------------------------------------------------------------------------------------------

    async def _reply(self, request: Message, content: Any) -> None:
        await self._send(
            self._maker.make(
                metaserver.SOURCE_CLOUD,
                "resource",
                Operation.RESPONSE,
                request.resource,
                content,
                parent=request.msg_id,
            )
        )

    async def _refuse(self, request: Message, error: ApiError) -> None:
        if resource.trim_node(request.resource).startswith("metaserver/"):
            answer = self._maker.error(request, error_content(error.status()))
            await self._send(
                self._maker.make(
                    metaserver.SOURCE_CLOUD,
                    "resource",
                    answer.operation,
                    answer.resource,
                    answer.content,
                    parent=answer.parent_msg_id,
                )
            )
        else:
            await self._applications.refuse(resource.node_of(request.resource), request, error)

    def _tell(self, node: str, events: metaserver.Events) -> None:
        path = resource.add_node(node, metaserver.EVENTS)
        message = self._maker.make(metaserver.SOURCE_CLOUD, metaserver.GROUP, metaserver.TELL, path, events.content())
        self._send_soon(message)

    def _send_soon(self, message: Message) -> None:
        self._tasks.start_soon(self._send, message)

    async def _send(self, message: Message) -> None:
        try:
            await self._ctx.bus.send(_HUB, message)
        except LookupError:
            self._ctx.log.debug("no hub to send to: resource=%s", message.resource)
