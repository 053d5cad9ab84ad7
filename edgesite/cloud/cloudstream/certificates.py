"""TLS of the tunnel port and of the stream port: files where they are, else the hub's certificates from their Secrets.

Callers of the stream port show a certificate of the CA in ``tlsStreamCAFile``, or of the one by which the cluster's API server knows
its clients (ConfigMap ``kube-system/extension-apiserver-authentication``): its own towards kubelets comes from there too.

Errors  ApiError: the Secrets cannot be read or are not there yet. OSError, ValueError: what is there cannot be used.
Source  KubeEdge v1.12.7: cloud/pkg/cloudhub/servers/httpserver (Secrets), cloud/pkg/cloudstream (files).
"""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Client
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, SECRETS
from edgesite.net import pem, tls

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["stream_context", "tunnel_context"]

_NAMESPACE: Final = "kubeedge"
_API_CLIENTS: Final = ("extension-apiserver-authentication", "kube-system", "client-ca-file")


async def tunnel_context(ctx: Context) -> ssl.SSLContext:
    """Return the server's context: a client certificate of the CA is required. Raises ApiError, OSError, ValueError."""
    certificate, key, ca = _files(ctx, "tlsTunnelCertFile", "tlsTunnelPrivateKeyFile", "tlsTunnelCAFile")
    if await _are_there(ctx, certificate, key, ca):
        return await ctx.threads.run(lambda: tls.server_context(certificate, key, client_ca=ca, require_client=True))
    client = ctx.services.find(Client)
    if client is None:
        raise ValueError("there is no API to read the hub's certificates from yet")
    client = client.named("cloudstream")
    authority = await client.get(SECRETS, "casecret", _NAMESPACE)
    chain = await _hubs_certificate(client)
    return tls.server_context(*chain, client_ca=pem.from_der(_member(authority, "cadata")), require_client=True)


async def stream_context(ctx: Context, client: Client) -> ssl.SSLContext:
    """Return the stream server's context; a caller without a certificate needs a token. Raises ApiError, OSError, ValueError."""
    certificate, key, ca = _files(ctx, "tlsStreamCertFile", "tlsStreamPrivateKeyFile", "tlsStreamCAFile")
    trusted = await ctx.threads.run(ca.read_bytes) if await _are_there(ctx, ca) else b""
    trusted += await _api_clients_ca(client)
    chain = await _hubs_certificate(client)
    if await _are_there(ctx, certificate, key):
        chain = await ctx.threads.run(certificate.read_bytes), await ctx.threads.run(key.read_bytes)
    if not trusted:
        ctx.log.warning("no CA of the API server is known (tlsStreamCAFile): only bearer tokens are taken")
    return tls.server_context(*chain, client_ca=trusted or None)


def _files(ctx: Context, *names: str) -> list[Path]:
    return [Path(str(ctx.config.get(name) or "")) for name in names]


async def _are_there(ctx: Context, *paths: Path) -> bool:
    return await ctx.threads.run(lambda: all(path.is_file() for path in paths))


async def _hubs_certificate(client: Client) -> tuple[bytes, bytes]:
    """Raises ApiError, ValueError."""
    server = await client.get(SECRETS, "cloudcoresecret", _NAMESPACE)
    key = pem.from_der(_member(server, "cloudcorekeydata"), "EC PRIVATE KEY")
    return pem.from_der(_member(server, "cloudcoredata")), key


async def _api_clients_ca(client: Client) -> bytes:
    """Raises ApiError."""
    name, namespace, member = _API_CLIENTS
    try:
        found = await client.get(CONFIG_MAPS, name, namespace)
    except ApiError as exc:
        if exc.code in (403, 404):
            return b""
        raise
    text = str((found.get("data") or {}).get(member) or "")
    return b"\n" + text.encode() if text else b""


def _member(secret: dict[str, Any], name: str) -> bytes:
    """Raises ValueError."""
    text = (secret.get("data") or {}).get(name)
    if not text:
        raise ValueError(f"Secret {secret['metadata'].get('name')} has no {name} yet")
    return base64.b64decode(text)
