"""TLS of the tunnel port: files where they are, else the hub's certificates from their Secrets.

Errors  ApiError: the Secrets cannot be read or are not there yet. OSError, ValueError: what is there cannot be used.
Source  reference/hub-and-metadata.md sections 3.1 and 10.1.
"""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Client
from edgesite.kube.resources import SECRETS
from edgesite.net import pem, tls

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["tunnel_context"]

_NAMESPACE: Final = "kubeedge"


async def tunnel_context(ctx: Context) -> ssl.SSLContext:
    """Return the server's context: a client certificate of the CA is required. Raises ApiError, OSError, ValueError."""
    names = ("tlsTunnelCertFile", "tlsTunnelPrivateKeyFile", "tlsTunnelCAFile")
    certificate, key, ca = [Path(str(ctx.config.get(name) or "")) for name in names]
    if await ctx.threads.run(lambda: all(path.is_file() for path in (certificate, key, ca))):
        return await ctx.threads.run(lambda: tls.server_context(certificate, key, client_ca=ca, require_client=True))
    client = ctx.services.find(Client)
    if client is None:
        raise ValueError("there is no API to read the hub's certificates from yet")
    client = client.named("cloudstream")
    authority = await client.get(SECRETS, "casecret", _NAMESPACE)
    server = await client.get(SECRETS, "cloudcoresecret", _NAMESPACE)
    return tls.server_context(
        pem.from_der(_member(server, "cloudcoredata")),
        pem.from_der(_member(server, "cloudcorekeydata"), "EC PRIVATE KEY"),
        client_ca=pem.from_der(_member(authority, "cadata")),
        require_client=True,
    )


def _member(secret: dict[str, Any], name: str) -> bytes:
    """Raises ValueError."""
    text = (secret.get("data") or {}).get(name)
    if not text:
        raise ValueError(f"Secret {secret['metadata'].get('name')} has no {name} yet")
    return base64.b64decode(text)
