"""The module ``admission``: webhooks for the API server of a cluster (port 10443). The embedded API needs none of it.

It listens as soon as ``edgesite cloud --install-crds`` (or an administrator) has written the Secret with its certificate, and shows another
one when that changes. Nobody authenticates: API servers show no certificate to webhooks of conversion. So let only them reach the port;
who else does can have devices converted, and learn whether a model would allow one.

Errors  None raised but ProviderGone: what cannot be read or opened is logged once and tried again.
State   What is shown now.
Source  KubeEdge v1.12, cloud/cmd/admission (its program of the same purpose).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Counter

from edgesite.client import Client, Informer
from edgesite.cloud.admission.place import SECRET, pair_of
from edgesite.cloud.admission.webhooks import CONVERSION_BYTES, Webhooks
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.devicecontroller.objects import DeviceObjects
from edgesite.cloud.namespace import NAMESPACE
from edgesite.context import Context, Section
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import DEVICE_MODELS, SECRETS
from edgesite.net.http import HttpServer, Limits
from edgesite.net.tls import renew, server_context

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Listener
    from edgesite.net.pki import KeyPair

__all__ = ["Admission"]

_RETRY_S: Final = 1.0  #: to open a port that is taken
_RETRY_MOST_S: Final = 60.0
_OPEN_S: Final = 10.0
_CONNECTIONS: Final = 64  #: an API server has some


class Admission:
    """See the module docstring."""

    name: ClassVar[str] = "admission"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = "modules.admission"

    def __init__(self) -> None:
        self._reviews: Counter | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("admission", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        counter = self._reviews = self._reviews or _counter(ctx.metrics)
        provided = await service(ctx, Client)
        models = _Models(ctx, provided.named("admission"))
        webhooks = Webhooks(models.cached, models.live, lambda what, end: counter.labels(what, end).inc(), ctx.log)
        limits = Limits(
            body_bytes=CONVERSION_BYTES, connections=_CONNECTIONS, makes_room=True, body_timeout_s=10.0, pipelined=8
        )
        async with (
            anyio.create_task_group() as tasks,
            HttpServer(webhooks, limits, clock=ctx.clock, log=ctx.log) as server,
        ):
            tasks.start_soon(while_provided, ctx, Client, provided)
            ctx.ready()
            await _Serving(ctx, models.client, server).run()


def _counter(registry: CollectorRegistry) -> Counter:
    text = "Reviews of a cluster's API server, by what was asked and how it ended"
    return Counter("edgesite_admission_reviews", text, ["review", "result"], registry=registry)


class _Models:
    def __init__(self, ctx: Context, client: Client) -> None:
        self._ctx = ctx
        self.client = client

    def cached(self, namespace: str, name: str) -> dict[str, Any] | None:
        objects = self._ctx.services.find(DeviceObjects)
        return None if objects is None else objects.model(namespace, name)

    async def live(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Raises ApiError."""
        try:
            model = await self.client.get(DEVICE_MODELS, name, namespace)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise
        return None if model["metadata"].get("deletionTimestamp") else model


class _Serving:
    """Keeps the listener open with the certificate of the Secret."""

    def __init__(self, ctx: Context, client: Client, server: HttpServer) -> None:
        self._ctx = ctx
        self._client = client
        self._server = server
        self._shown: KeyPair | None = None
        self._context: ssl.SSLContext | None = None
        self._listener: Listener | None = None
        self._said = ""
        self._news = anyio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        ctx = self._ctx
        secrets = Informer(
            self._client, SECRETS, ctx.clock, ctx.random, namespace=NAMESPACE, field_selector=f"metadata.name={SECRET}"
        )
        wait_s = _RETRY_S
        async with anyio.create_task_group() as tasks:
            with secrets.add_handler(self._changed, lambda _, new: self._changed(new), None):
                tasks.start_soon(secrets.run)
                while True:
                    await self._news.wait()
                    self._news = anyio.Event()
                    if await self._take(secrets.get(SECRET, NAMESPACE)):
                        wait_s = _RETRY_S
                        continue
                    with anyio.move_on_after(wait_s * (0.75 + ctx.random.random() / 2)):
                        await self._news.wait()
                    self._news.set()
                    wait_s = min(wait_s * 2, _RETRY_MOST_S)

    def _changed(self, secret: dict[str, Any]) -> None:
        self._news.set()

    async def _take(self, secret: dict[str, Any] | None) -> bool:
        """Show what the Secret holds; one that is gone changes nothing. False: to be tried again."""
        if secret is None:
            return True
        try:
            with anyio.fail_after(_OPEN_S):
                await self._serve(pair_of(secret))
        except ValueError as exc:  # it has to change first
            self._say(str(exc))
        except OSError as exc:  # TimeoutError is one
            self._say(f"{exc or 'the port cannot be opened in time'}")
            return False
        else:
            self._said = ""
        return True

    async def _serve(self, pair: KeyPair) -> None:
        """Raises OSError."""
        if pair != self._shown:
            await self._ctx.threads.run(self._show, pair)
            self._shown = pair
        if self._listener is None and self._context is not None:
            config = self._ctx.config
            address = f"{_host(str(config.get('address') or '0.0.0.0'))}:{int(config.get('port') or 10443)}"
            self._listener = await self._server.listen(self._ctx.net, address, tls=self._context)
            self._ctx.log.info("webhooks for the cluster's API server: %s", self._listener.address)

    def _show(self, pair: KeyPair) -> None:
        """Raises OSError."""
        if self._context is None:
            self._context = server_context(pair.certificate, pair.key)
        else:
            renew(self._context, pair.certificate, pair.key, client_ca=None)
            self._ctx.log.info("the webhooks show another certificate from now on")

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            self._ctx.log.warning("webhooks for the cluster's API server: %s", problem)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
