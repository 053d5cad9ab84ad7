"""Plugin ``cloud``: the modules of KubeEdge's cloud side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.context import Module, Settings
    from edgesite.hookspecs import Command


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    if settings.cloud is None:
        return []
    from edgesite.cloud.cloudhub.module import CloudHub
    from edgesite.cloud.cloudstream.module import CloudStream
    from edgesite.cloud.edgecontroller.module import EdgeController
    from edgesite.cloud.iptablesmanager.module import IptablesManager
    from edgesite.cloud.synccontroller.module import SyncController
    from edgesite.cloud.taskmanager.module import TaskManager

    return [CloudHub, CloudStream, EdgeController, IptablesManager, SyncController, TaskManager]


@impl
def edgesite_commands() -> Iterable[Command]:
    from edgesite.cloud.iptablesmanager.command import COMMAND

    return [COMMAND]
