"""The module ``iptablesmanager``: `Manager` in the cloud role, for a cluster whose API server runs on this machine.

Off with the embedded API server, which reaches nodes without any port, and in mode ``external``, where ``edgesite iptablesmanager`` runs
beside each API server instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgesite.client import Client
from edgesite.cloud.cloudhub.waiting import service

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["IptablesManager"]


class IptablesManager:
    """See the module docstring."""

    name: ClassVar[str] = "iptablesmanager"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = "modules.iptablesManager"

    def enabled(self, settings: Section) -> bool:
        api, modules = settings.get("api"), settings.get("modules", {})
        own = modules.get("iptablesManager", {})
        streams = modules.get("cloudStream", {}).get("enable", True)
        embedded = api is None or api.get("enable", True)
        return bool(not embedded and streams and own.get("enable", True) and own.get("mode") != "external")

    async def run(self, ctx: Context) -> None:
        from edgesite.cloud.iptablesmanager.manager import Manager  # most sites are without

        client = (await service(ctx, Client)).named("iptablesmanager")
        port = int(ctx.settings.get("modules", {}).get("cloudStream", {}).get("streamPort") or 10003)
        ctx.ready()
        await Manager(client, port, ctx.clock, ctx.random, ctx.log).run()
