"""Sends images to a URL, in the form in which KubeEdge's mapper does.

Errors  DriverError.
Source  KubeEdge v1.12, mappers-go mappers/gige (form field and content type).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from edgesite.mapper import DriverError
from edgesite.net.client import HttpClient
from edgesite.net.tls import client_context

if TYPE_CHECKING:
    from edgesite.context import Net

__all__ = ["checked_url", "upload"]

FIELD: Final = "gigEImage"
_PORTS: Final = {"http": 80, "https": 443}


def checked_url(url: str) -> str:
    """Raises DriverError."""
    try:
        parts = urlsplit(url)
        is_well = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_well = False
    if not is_well or len(url) > 2048 or any(one <= " " or one > "~" for one in url):
        raise DriverError("ImageURL is no http:// or https:// URL")
    return url


async def upload(net: Net, url: str, image: bytes) -> None:
    """Post an image. The caller sets the deadline. Raises DriverError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    at = f"[{host}]" if ":" in host else host
    tls = client_context() if parts.scheme == "https" else None
    client = HttpClient(
        net, f"{at}:{parts.port or _PORTS[parts.scheme]}", tls=tls, server_hostname=host if tls else None
    )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    body = f"{FIELD}={base64.urlsafe_b64encode(image).decode().replace('=', '%3D')}".encode()
    headers = {"content-type": "application/x-www-form-urlencoded; param=value"}
    try:
        answer = await client.request("POST", target, headers, body)
    except OSError as exc:
        raise DriverError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} takes no image: {str(exc)[:200]}"
        ) from exc
    finally:
        await client.close()
    if answer.status >= 400:
        raise DriverError(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} answers {answer.status} to an image")
