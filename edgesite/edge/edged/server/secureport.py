"""The kubelet API on a TLS port of the node, with everything that it can do, for callers who prove who they are.

Off unless ``tailoredKubeletConfig.port`` is set (KubeEdge has it at 0, kubelet at 10250). A caller shows a certificate of the CA in
``authentication.x509.clientCAFile``, or a bearer token (``authentication.webhook.enabled``, the default). `door` says who is let through.
Nobody is anonymous here.

The certificate shown is ``tlsCertFile``, else one of our own making in the data folder, as kubelet makes it.

Units   Days, seconds.
Errors  What hinders the port is logged, and tried again with backoff.
State   ``pki/kubelet.crt`` and ``pki/kubelet.key`` in the role's data folder, PEM.
Source  KubeletConfiguration v1beta1; kubeadm (names of the API server's certificates for kubelets).
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.durable import replace_file
from edgesite.edge.edged.server.door import Door
from edgesite.net import address, pem, tls
from edgesite.net.http import HttpServer, Limits
from edgesite.net.pki import Pki, PkiError, RealPki

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.edged.server.later import LaterApi

__all__ = ["Certificates", "serve_secure"]

_LIMITS: Final = Limits(connections=256, body_bytes=64 * 1024)
_DAYS: Final = 365
_LOOK_S: Final = 86400.0
_KEEP_S: Final = 30 * 86400.0  #: a certificate of ours with less than this left is made anew
_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0


class Certificates:
    """Which files are shown, by the settings as they are now."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._reloaded = anyio.Event()

    def reload(self, config: Section) -> None:
        self.ctx = replace(self.ctx, config=config)
        self._reloaded.set()

    async def due(self) -> None:
        """Wait until they are to be looked at again."""
        with anyio.move_on_after(_LOOK_S):  # a node may run for years
            await self._reloaded.wait()
        self._reloaded = anyio.Event()


async def serve_secure(ctx: Context, api: LaterApi, certificates: Certificates) -> None:
    """Open the port if one is set; the server ends when cancelled."""
    port = int(ctx.config.get("port") or 0)
    if not port:
        return
    authentication = ctx.config.get("authentication") or {}
    ca = str((authentication.get("x509") or {}).get("clientCAFile") or "")
    if not ca:
        ctx.log.error("port %d stays closed: authentication.x509.clientCAFile must name the CA of its callers", port)
        return
    ca_file = Path(ca)
    always = (ctx.config.get("authorization") or {}).get("mode") == "AlwaysAllow"
    tokens = bool((authentication.get("webhook") or {}).get("enabled", True))
    door = Door(ctx, api, always=always, tokens=tokens)
    at = address.join(str(ctx.config.get("address") or "127.0.0.1"), port)
    async with HttpServer(door.handle, _LIMITS, clock=ctx.clock, log=ctx.log) as server:
        wait_s, said = _RETRY_S, ""
        while True:
            try:
                context = await ctx.threads.run(_server, *await _chain(ctx), ca_file)
                await server.listen(ctx.net, at, tls=context)
            except (OSError, ValueError, PkiError, ssl.SSLError) as exc:
                if str(exc) != said:
                    said = str(exc)
                    ctx.log.warning("cannot listen on %s, trying again: %s", at, exc)
            else:
                break
            await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
            wait_s = min(wait_s * 2, _RETRY_MOST_S)
        ctx.log.info("the kubelet API is open on %s for callers who prove who they are", at)
        while True:
            await certificates.due()
            try:
                await ctx.threads.run(_renew, context, *await _chain(certificates.ctx), ca_file)
            except (OSError, ValueError, PkiError, ssl.SSLError) as exc:
                ctx.log.warning("the certificate of %s cannot be renewed: %s", at, exc)


def _server(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """Raises OSError."""
    return tls.server_context(certificate, key, client_ca=ca)


def _renew(context: ssl.SSLContext, certificate: Path, key: Path, ca: Path) -> None:
    """Raises OSError."""
    tls.renew(context, certificate, key, client_ca=ca)


async def _chain(ctx: Context) -> tuple[Path, Path]:
    """Return the files of certificate and key: those of the configuration, or ours, made anew when they are about to end.
    Raises OSError, ValueError, PkiError."""
    names = [str(ctx.config.get(name) or "") for name in ("tlsCertFile", "tlsPrivateKeyFile")]
    if all(names):
        return Path(names[0]), Path(names[1])
    folder = ctx.data_dir / "pki"
    certificate, key = folder / "kubelet.crt", folder / "kubelet.key"
    if await ctx.threads.run(_end_of, certificate, key) - ctx.clock.time() > _KEEP_S:
        return certificate, key
    node_ip = str(ctx.settings.get("modules", {}).get("edged", {}).get("nodeIP") or "")
    names = [ctx.node_name, "localhost"]
    ips = ["127.0.0.1", *([node_ip] if node_ip else [])]
    pki: Pki = ctx.services.find(Pki) or RealPki(ctx.clock)  # type: ignore[type-abstract]
    async with pki.session() as maker:
        issuer = await maker.make_ca(f"{ctx.node_name}-ca", days=_DAYS)
        made = await maker.issue(issuer, ctx.node_name, dns_names=names, ips=ips, days=_DAYS)
    await ctx.threads.run(_write, {key: made.key, certificate: made.certificate + issuer.certificate})
    return certificate, key


def _end_of(certificate: Path, key: Path) -> float:
    """When the certificate ends; 0 if there is none that can be used."""
    try:
        return pem.facts(certificate.read_bytes()).not_after if key.is_file() else 0.0
    except (OSError, ValueError):
        return 0.0


def _write(files: dict[Path, bytes]) -> None:
    """Raises OSError."""
    for path, data in files.items():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, data)
