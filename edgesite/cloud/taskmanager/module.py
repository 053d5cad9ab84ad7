"""The module ``taskmanager``: gives the tasks of jobs to nodes, and keeps the jobs' status by what these tell.

jobs ──> nodes that may begin ──> bus: cloudhub ──> edges
edges ──> group taskmanager (over the hub), group nodeupgradejobcontroller (POST /nodeupgrade) ──> status of the job

Off unless ``modules.nodeUpgradeJobController.enable`` or ``modules.taskManager.enable`` is set, as with KubeEdge; then nothing of it is
loaded. Messages are sent once; a node that does not answer in time has failed, also one that was offline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.client import Client, SharedInformers
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.taskmanager.needs import TaskNeeds

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["TaskManager"]

_GROUPS: Final = ("taskmanager", "nodeupgradejobcontroller")


class TaskManager:
    """See the module docstring."""

    name: ClassVar[str] = "taskmanager"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"cloudhub"})
    section: ClassVar[str] = "modules.nodeUpgradeJobController"

    def enabled(self, settings: Section) -> bool:
        modules = settings.get("modules", {})
        return any((modules.get(one) or {}).get("enable", False) for one in ("nodeUpgradeJobController", "taskManager"))

    async def run(self, ctx: Context) -> None:
        from edgesite.cloud.taskmanager.jobs import Jobs

        provided = await service(ctx, Client)
        informers = await service(ctx, SharedInformers)
        inboxes = [ctx.bus.join(one, one) for one in _GROUPS]
        jobs = Jobs(ctx, provided.named("taskmanager"), informers)
        ctx.services.provide(TaskNeeds, jobs)  # type: ignore[type-abstract]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(while_provided, ctx, Client, provided)
            for inbox, take in zip(inboxes, (jobs.told, jobs.reported), strict=True):
                tasks.start_soon(_listen, inbox, take)
            await jobs.run(ctx.ready)


async def _listen(inbox: Any, take: Any) -> None:
    async for message in inbox:
        await take(message)
