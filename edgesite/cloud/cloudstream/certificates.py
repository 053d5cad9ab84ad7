"""TLS of the tunnel port and of the stream port: files where they are, else the hub's certificates from their Secrets.

Callers of the stream port show a certificate of the CA in ``tlsStreamCAFile``, or of the one by which the cluster's API server knows
its clients (ConfigMap ``kube-system/extension-apiserver-authentication``): its own towards kubelets comes from there too.

Errors  ApiError: the Secrets cannot be read or are not there yet. OSError, ValueError: what is there cannot be used.
Source  KubeEdge v1.12.7: cloud/pkg/cloudhub/servers/httpserver (Secrets), cloud/pkg/cloudstream (files).
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Client
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, SECRETS
from edgesite.net import pem, tls

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["Identity", "stream_identity", "tunnel_identity"]

_NAMESPACE: Final = "kubeedge"
_API_CLIENTS: Final = ("extension-apiserver-authentication", "kube-system", "client-ca-file")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a port shows, and whom it trusts; PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes = b""
    requires_client: bool = False

    def context(self) -> ssl.SSLContext:
        """Raises OSError."""
        ca = self.client_ca or None
        return tls.server_context(self.certificate, self.key, client_ca=ca, require_client=self.requires_client)

    def renew(self, context: ssl.SSLContext) -> None:
        """Show this to who connects from now on. Raises OSError."""
        tls.renew(context, self.certificate, self.key, client_ca=self.client_ca or None)


async def tunnel_identity(ctx: Context) -> Identity:
    """Of the port where a client certificate of the CA is required. Raises ApiError, OSError, ValueError."""
    files = _files(ctx, "tlsTunnelCertFile", "tlsTunnelPrivateKeyFile", "tlsTunnelCAFile")
    if await _are_there(ctx, *files):
        certificate, key, ca = await ctx.threads.run(lambda: [one.read_bytes() for one in files])
        return Identity(certificate, key, ca, requires_client=True)
    client = ctx.services.find(Client)
    if client is None:
        raise ValueError("there is no API to read the hub's certificates from yet")
    client = client.named("cloudstream")
    authority = await client.get(SECRETS, "casecret", _NAMESPACE)
    chain = await _hubs_certificate(client)
    return Identity(*chain, pem.from_der(_member(authority, "cadata")), requires_client=True)


async def stream_identity(ctx: Context, client: Client) -> Identity:
    """Of the stream server, where a caller without a certificate needs a token. Raises ApiError, OSError, ValueError."""
    certificate, key, ca = _files(ctx, "tlsStreamCertFile", "tlsStreamPrivateKeyFile", "tlsStreamCAFile")
    trusted = await ctx.threads.run(ca.read_bytes) if await _are_there(ctx, ca) else b""
    trusted += await _api_clients_ca(client)
    chain = await _hubs_certificate(client)
    if await _are_there(ctx, certificate, key):
        chain = await ctx.threads.run(certificate.read_bytes), await ctx.threads.run(key.read_bytes)
    if not trusted:
        ctx.log.warning("no CA of the API server is known (tlsStreamCAFile): only bearer tokens are taken")
    return Identity(*chain, trusted)


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
