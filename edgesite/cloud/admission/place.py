"""Where a cluster's API server finds the webhooks, and the Secret that holds their certificate.

    kubeedge/kubeedge-admission-secret     tls.crt, tls.key: the server's; ca.crt: what the API server trusts. PEM

The Secret is made by ``edgesite cloud --install-crds``, or by an administrator (KubeEdge's gen-admission-secret.sh makes the same, a
cert-manager Certificate does too); one that is not ours is used as it is.

Errors  ValueError: a place that API servers would refuse; a Secret that holds no certificate.
State   None.
Source  KubeEdge v1.12, build/admission (names of Service and Secret); apiextensions.k8s.io and admissionregistration.k8s.io v1 (clientConfig).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from edgesite.net.pki import KeyPair

__all__ = ["CONVERT", "DEVICES", "MODELS", "SECRET", "SERVICE", "Place", "pair_of", "place_of", "text_of"]

SECRET: Final = "kubeedge-admission-secret"
SERVICE: Final = "kubeedge-admission-service"
CONVERT: Final = "/convert"
DEVICES: Final = "/devices"
MODELS: Final = "/devicemodels"
_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Place:
    """A URL without path, or a Service: one of the two."""

    url: str = ""
    namespace: str = ""
    service: str = ""
    port: int = _HTTPS_PORT

    def client_config(self, path: str, ca_bundle: bytes) -> dict[str, Any]:
        """As the API server's objects hold it."""
        bundle = base64.b64encode(ca_bundle).decode()
        if self.url:
            return {"url": self.url + path, "caBundle": bundle}
        service = {"namespace": self.namespace, "name": self.service, "path": path, "port": self.port}
        return {"service": service, "caBundle": bundle}

    def names(self) -> list[str]:
        """DNS names and addresses that the server's certificate must hold."""
        if self.url:
            return [urlsplit(self.url).hostname or ""]
        return [f"{self.service}.{self.namespace}.svc", f"{self.service}.{self.namespace}", self.service]

    def __str__(self) -> str:
        return self.url or f"service {self.namespace}/{self.service}:{self.port}"


def place_of(config: Mapping[str, Any]) -> Place | None:
    """Read ``modules.admission``, or a clientConfig; None if it names no place. Raises ValueError."""
    url, service = str(config.get("url") or ""), config.get("service") or {}
    if url:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{url!r} is no place of webhooks: write https://HOST:PORT")
        base = url.removesuffix("/").removesuffix(CONVERT)
        return Place(url=base)
    if service.get("name"):
        port = int(service.get("port") or _HTTPS_PORT)
        return Place(namespace=str(service.get("namespace") or ""), service=str(service["name"]), port=port)
    return None


def text_of(secret: Mapping[str, Any], key: str) -> bytes:
    """One entry of a Secret; b"" if there is none. Raises ValueError."""
    try:
        return base64.b64decode(str((secret.get("data") or {}).get(key) or ""), validate=True)
    except binascii.Error as exc:
        raise ValueError(f"{key} of Secret {SECRET} is not base64: {exc}") from None


def pair_of(secret: Mapping[str, Any]) -> KeyPair:
    """The server's certificate. Raises ValueError."""
    pair = KeyPair(text_of(secret, "tls.crt"), text_of(secret, "tls.key"))
    if not pair.certificate or not pair.key:
        raise ValueError(f"Secret {SECRET} holds no tls.crt and tls.key")
    return pair
