"""The module ``taskmanager`` of the edge: carries out what jobs of the cloud want of this node, and tells what became of it.

    imageprepulljob     checks the machine, then pulls each image; two answers, Check and Pull
    nodeupgradejob      is declined in words: this program is upgraded by the system's packages, not by a container image
    upgrade (v1.12)     the same, told by POST /nodeupgrade

An answer waits for the link. One task at a time; others wait in a bounded line, and beyond that are declined.

Source  KubeEdge v1.23.1 (recorded: operations, resources, members); v1.12.7 edge/pkg/edgehub/upgrade.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.edge.edged.imagestore import ImageStore
from edgesite.edge.edgehub.link import Link
from edgesite.kube import json
from edgesite.kube.times import format_time
from edgesite.net.errors import NetError
from edgesite.wire.message import InvalidMessage, Message, MessageMaker

if TYPE_CHECKING:
    from edgesite.context import Context, Inbox, Section

__all__ = ["EdgeTasks"]

_Take = Callable[[Message], Awaitable[None]]
_HUB: Final = "websocket"
_STATUS: Final = "UpdateNodeActionStatus"
_GROUPS: Final = ("taskmanager", "nodeupgradejobcontroller")
_WAITING: Final = 16
_LOOK_S: Final = 1.0
_IMAGES: Final = 256
_DECLINED: Final = "this edge is upgraded by the packages of its system, not by a job"
_RETRIES: Final = 5
_PULL_WAIT_S: Final = 2.0


class EdgeTasks:
    """See the module docstring."""

    name: ClassVar[str] = "taskmanager"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"edgehub"})
    section: ClassVar[str] = "modules.edgeHub"

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("edgeHub", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        tasks = _Tasks(ctx)
        inboxes = [ctx.bus.join(group, group) for group in _GROUPS]
        ctx.ready()
        async with anyio.create_task_group() as group:
            for inbox, take in zip(inboxes, (tasks.task, tasks.upgrade), strict=True):
                group.start_soon(_serve, inbox, take, tasks.decline)


async def _serve(inbox: Inbox, take: _Take, decline: _Take) -> None:
    """Take messages at once, for the hub waits for us, and work on them one after the other."""
    line, waiting = anyio.create_memory_object_stream[Message](_WAITING)

    async def work() -> None:
        async for message in waiting:
            await take(message)

    async with line, waiting, anyio.create_task_group() as group:
        group.start_soon(work)
        async for message in inbox:
            try:
                line.send_nowait(message)
            except anyio.WouldBlock:
                await decline(message)


class _Tasks:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)

    async def decline(self, message: Message) -> None:
        """There are too many tasks."""
        self._ctx.log.warning("declined: %s: %d tasks wait already", message.resource, _WAITING)
        if message.group == _GROUPS[0]:
            await self._tell(message, message.operation, "too many tasks wait on this node")

    async def task(self, message: Message) -> None:
        """operations.kubeedge.io/v1alpha2/<kind>/<job>/node/<node>, content: the job's spec."""
        parts = message.resource.split("/")
        if len(parts) != 6 or parts[5] != self._ctx.node_name:
            self._ctx.log.warning("left alone: a task for %s", message.resource)
            return
        try:
            spec = message.object()
        except InvalidMessage as exc:
            await self._tell(message, message.operation, str(exc))
            return
        if parts[2] == "imageprepulljob":
            await self._pull(message, spec)
        else:
            await self._tell(
                message, message.operation, _DECLINED if parts[2] == "nodeupgradejob" else "no such task here"
            )

    async def _pull(self, message: Message, spec: dict[str, Any]) -> None:
        template = spec.get("imagePrePullTemplate")
        template = template if isinstance(template, dict) else {}
        images = [one for one in template.get("images") or () if isinstance(one, str)][:_IMAGES]
        store = self._ctx.services.find(ImageStore)  # type: ignore[type-abstract]
        why = await self._why_not(template.get("checkItems") or (), images)
        if store is None:
            why = why or "edged is not running"
        await self._tell(message, "Check", why)
        if why or store is None:
            return
        rows = []
        retries = template.get("retryTimes")
        tries = 1 + (min(retries, _RETRIES) if isinstance(retries, int) and retries > 0 else 0)
        for image in images:
            why = await self._pull_one(store, image, str(template.get("imageSecrets") or ""), tries)
            rows.append({"image": image, "status": "False" if why else "True", **({"reason": why} if why else {})})
        failed = any("reason" in one for one in rows)
        why = "there were some failures when pulling images" if failed else ""
        await self._tell(message, "Pull", why, json.dumps(rows).decode())

    async def _pull_one(self, store: ImageStore, image: str, secret: str, tries: int) -> str:
        """Returns why an image cannot be had; "" if it is there."""
        for attempt in range(1, tries + 1):
            if not (why := await store.pull(image, secret)):
                return ""
            if attempt < tries:
                await self._ctx.clock.sleep(_PULL_WAIT_S * attempt * (0.5 + self._ctx.random.random()))
        return why

    async def _why_not(self, items: Any, images: list[str]) -> str:
        if not images:
            return "the job names no images"
        from edgesite.edge.taskmanager.checks import failing
        from edgesite.edge.taskmanager.usage import used

        wanted = list(items) if isinstance(items, list | tuple) else []
        try:
            return failing(wanted, await self._ctx.threads.run(used, self._ctx.data_dir)) if wanted else ""
        except (OSError, KeyError, ValueError) as exc:
            return f"the machine cannot be looked at: {exc}"

    async def upgrade(self, message: Message) -> None:
        """upgrade/<job>/node/<node> of v1.12, content with capitalised members."""
        from edgesite.edge.taskmanager import report  # seldom needed

        try:
            asked = message.object()
        except InvalidMessage:
            return
        self._ctx.log.warning("declined: an upgrade to %s: %s", str(asked.get("Version"))[:80], _DECLINED)
        told = {
            "UpgradeID": str(asked.get("UpgradeID") or ""),
            "HistoryID": str(asked.get("HistoryID") or ""),
            "NodeName": self._ctx.node_name,
            "FromVersion": "",
            "ToVersion": str(asked.get("Version") or ""),
            "Status": report.REFUSED,
            "Reason": _DECLINED,
        }
        try:
            await report.post(self._ctx, self._ctx.config, told)
        except (OSError, NetError, ValueError) as exc:
            self._ctx.log.warning("the cloud cannot be told of the upgrade: %s", exc)

    async def _tell(self, task: Message, action: str, why: str, extend: str = "") -> None:
        """Tell what became of an action, as soon as there is a link."""
        content = {
            "action": action,
            "succ": not why,
            "finishTime": format_time(self._ctx.clock.time()),
            "reason": why,
            "extend": extend,
        }
        self._ctx.log.info("task %s: %s %s", task.resource, action, why or "done")
        answer = self._maker.make(_HUB, "hub", _STATUS, task.resource, content)
        while not await self._sent(answer):
            await self._ctx.clock.sleep(_LOOK_S)

    async def _sent(self, answer: Message) -> bool:
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        if link is None or not link.connected:
            return False
        try:
            await self._ctx.bus.send(_HUB, answer)
        except LookupError:  # the hub is being started anew
            return False
        return True
