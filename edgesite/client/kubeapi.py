"""The module ``kubeapi``: the cloud role's client and informers where the API is a cluster's own.

Units   Times are seconds.
Errors  BadKubeconfig and OSError for access that cannot work: the host says so and tries again.
State   None.
Source  KubeEdge's configuration: section ``kubeAPIConfig`` (names of the members); in a pod without one, its service account.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

import anyio

from edgesite.client import kubeconfig
from edgesite.client.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.informer import SharedInformers
from edgesite.client.ratelimit import RateLimit
from edgesite.client.transport import CallerTransport
from edgesite.kube import json
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["KubeApiModule", "access_from"]

FIRST_ANSWER_S: Final = 30.0


class KubeApiModule:
    """Provides `Client` and `SharedInformers` over HTTP."""

    name: ClassVar[str] = "kubeapi"
    stands_for: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "kubeAPIConfig"
    reloads: ClassVar[frozenset[str]] = frozenset({"burst", "qps"})

    def __init__(self) -> None:
        self._limit: RateLimit | None = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`. Raises nothing."""
        if self._limit is not None:
            self._limit.change(config["qps"], config["burst"])

    def enabled(self, settings: Section) -> bool:
        """Wanted where there is no embedded API server."""
        api = settings.get("api")
        return api is None or not api.get("enable", True)

    async def run(self, ctx: Context) -> None:
        """Serve until cancelled. Raises BadKubeconfig, OSError, ApiError."""
        limit = self._limit = RateLimit(ctx.clock, ctx.config["qps"], ctx.config["burst"])
        access = access_from(ctx.config)
        transport = HttpTransport(ctx.net, ctx.clock, access, limit=limit, draw=ctx.random)
        callers = HttpTransport(ctx.net, ctx.clock, _without_credentials(access), limit=limit, draw=ctx.random)
        try:
            client = Client(transport)
            with anyio.fail_after(FIRST_ANSWER_S):
                status, _, body = await client.request("GET", "/version")
            if status != 200:
                raise ApiError(status, "Unknown", f"the API server answered /version with status {status}")
            ctx.log.info("using the cluster's API server version=%s", json.loads(body).get("gitVersion"))
            informers = SharedInformers(client, ctx.clock, ctx.random, ctx.log)
            ctx.services.provide(Client, client)
            ctx.services.provide(SharedInformers, informers)
            ctx.services.provide(CallerTransport, CallerTransport(callers))
            ctx.ready()
            await informers.run()
        finally:
            with anyio.CancelScope(shield=True):  # closing sockets waits for nobody
                await transport.close()
                await callers.close()


def _without_credentials(access: kubeconfig.Access) -> kubeconfig.Access:
    return replace(access, certificate=None, key=None, token="", token_file=None, basic="")


def access_from(config: Section) -> kubeconfig.Access:
    """Return the access that the configuration describes; ``master`` overrides the server. Raises BadKubeconfig."""
    path = config.get("kubeConfig") or ""
    access = kubeconfig.load(Path(path)) if path else kubeconfig.from_pod(os.environ)
    if master := config.get("master") or "":
        url = urlsplit(master if "://" in master else f"https://{master}")
        if not url.hostname:
            raise kubeconfig.BadKubeconfig(f"master {master!r} is no URL")
        secure = url.scheme == "https"
        access = replace(
            access, host=url.hostname, port=url.port or (443 if secure else 80), tls=secure, path=url.path.rstrip("/")
        )
    return access
