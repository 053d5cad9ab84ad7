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
    from edgesite.cloud.devicecontroller.module import DeviceController
    from edgesite.cloud.edgecontroller.module import EdgeController
    from edgesite.cloud.synccontroller.module import SyncController

    modules: list[type[Module]] = [CloudHub, CloudStream, DeviceController, EdgeController, SyncController]
    if settings.api is None or not settings.api.get("enable", True):
        from edgesite.cloud.iptablesmanager.module import IptablesManager

        modules.append(IptablesManager)
        if (settings.cloud.get("modules", {}).get("admission") or {}).get("enable", True):
            from edgesite.cloud.admission.module import Admission

            modules.append(Admission)
    switches = settings.cloud.get("modules", {})
    if (switches.get("dynamicController") or {}).get("enable"):
        from edgesite.cloud.dynamiccontroller.module import DynamicController

        modules.append(DynamicController)
    if (settings.cloud.get("featureGates") or {}).get("requireAuthorization"):
        from edgesite.cloud.policycontroller.module import PolicyController

        modules.append(PolicyController)
    if any((switches.get(name) or {}).get("enable") for name in ("nodeUpgradeJobController", "taskManager")):
        from edgesite.cloud.taskmanager.module import TaskManager

        modules.append(TaskManager)
    return modules


@impl
def edgesite_commands() -> Iterable[Command]:
    from edgesite.cloud.iptablesmanager.command import COMMAND

    return [COMMAND]
