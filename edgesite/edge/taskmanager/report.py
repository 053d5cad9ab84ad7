"""What became of an upgrade, told to a cloud of KubeEdge v1.12: POST /nodeupgrade with the node's certificate.

Errors  OSError, NetError, and whatever makes the certificate files unusable (OSError too).
Source  KubeEdge v1.12.7 cloud/pkg/cloudhub/servers/httpserver (path, members).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio

from edgesite.kube import json
from edgesite.net.client import HttpClient
from edgesite.net.proxy import through_proxy
from edgesite.net.tls import client_context

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["REFUSED", "post"]

REFUSED: Final = "upgrade_failed_rollback_success"  #: the node is as it was
_DEADLINE_S: Final = 30.0


async def post(ctx: Context, hub: Section, report: dict[str, Any]) -> None:
    """Report to the first bootstrap server of ``modules.edgeHub``. Raises OSError, NetError."""
    paths = [Path(str(hub[name])) for name in ("tlsCaFile", "tlsCertFile", "tlsPrivateKeyFile")]
    ca, certificate, key = paths
    tls = await ctx.threads.run(lambda: client_context(ca=ca, certificate=certificate, key=key))
    server = urlsplit(str(hub["httpServer"]).split(",")[0].strip())
    host = f"[{server.hostname}]" if ":" in (server.hostname or "") else server.hostname
    net = through_proxy(ctx.net, str(hub.get("proxy") or ""))
    with anyio.fail_after(_DEADLINE_S):
        async with HttpClient(net, f"{host}:{server.port or 10002}", tls=tls) as client:
            await client.request("POST", "/nodeupgrade", {"Content-Type": "application/json"}, json.dumps(report))
