"""Plugin ``edge``: the modules of KubeEdge's edge side, and the built-in pod runtimes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.context import Module, Section, Settings
    from edgesite.hookspecs import DriverFactory, RuntimeFactory


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    if not settings.edges:
        return []
    from edgesite.edge.devicetwin.module import DeviceTwin
    from edgesite.edge.dmi.module import Dmi
    from edgesite.edge.edged.module import Edged
    from edgesite.edge.edged.server.module import KubeletApiServer
    from edgesite.edge.edgehub.module import EdgeHub
    from edgesite.edge.edgestream.module import EdgeStream
    from edgesite.edge.eventbus.module import EventBus
    from edgesite.edge.mappers.module import MapperHost
    from edgesite.edge.metamanager.module import MetaManager
    from edgesite.edge.taskmanager.module import EdgeTasks

    modules: list[type[Module]] = [
        DeviceTwin,
        Dmi,
        Edged,
        EdgeHub,
        EdgeStream,
        EdgeTasks,
        EventBus,
        KubeletApiServer,
        MapperHost,
        MetaManager,
    ]
    if any(_serves_api(one) or _serves_kubelet(one) for one in settings.edges):
        from edgesite.edge.access.module import AccessModule

        modules.append(AccessModule)
    if any(_serves_api(one) for one in settings.edges):
        from edgesite.edge.metaserver.module import MetaServer

        modules.append(MetaServer)
    return modules


def _serves_api(settings: Section) -> bool:
    manager = settings.get("modules", {}).get("metaManager") or {}
    return bool((manager.get("metaServer") or {}).get("enable"))


def _serves_kubelet(settings: Section) -> bool:
    """Whether the kubelet API has a port that asks who comes."""
    edged = settings.get("modules", {}).get("edged") or {}
    return bool((edged.get("tailoredKubeletConfig") or {}).get("port"))


@impl
def edgesite_runtime(name: str, config: Section) -> RuntimeFactory | None:
    if name == "cri":
        from edgesite.edge.edged import cri

        return cri.factory
    if name == "process":
        from edgesite.edge.edged import process

        return process.factory
    return None


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol == "virtual":
        from edgesite.mapper.virtual.driver import VirtualDriver

        return VirtualDriver
    return None
