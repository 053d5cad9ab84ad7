"""Names of images, and which credentials a pull secret holds for them. Pure.

Errors  InvalidImageName for a text that cannot be a name.
Source  OCI distribution reference grammar; Docker's defaults (docker.io, library/, :latest); Kubernetes dockerconfigjson and
        dockercfg secrets and how their registry keys match.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgesite.edge.edged.runtime import RegistryAuth
from edgesite.kube import json

__all__ = [
    "InvalidImageName",
    "credentials",
    "default_pull_policy",
    "matches_registry",
    "normalized",
    "of_auths",
    "repository",
]

_DOMAIN: Final = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_DOCKER: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
MAX_NAME: Final = 255


class InvalidImageName(ValueError):
    """The text is for the pod's status."""


def normalized(image: str) -> str:
    """Return the full name: registry, path, and tag or digest. Raises InvalidImageName."""
    domain, path, tag, digest = _split(image)
    suffix = f"@{digest}" if digest else f":{tag or 'latest'}"
    if digest and tag:
        suffix = f":{tag}@{digest}"
    return f"{domain}/{path}{suffix}"


def default_pull_policy(image: str) -> str:
    """Return Always for :latest and untagged names, else IfNotPresent. Raises InvalidImageName."""
    _, _, tag, digest = _split(image)
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"


def _split(image: str) -> tuple[str, str, str, str]:
    match = _NAME.fullmatch(image)
    if match is None or len(match["path"]) > MAX_NAME or re.fullmatch(r"[a-f0-9]{64}", image):
        raise InvalidImageName(f'couldn\'t parse image name "{image}": invalid reference format')
    domain, path = match["domain"] or "", match["path"]
    if domain and "." not in domain and ":" not in domain and domain != "localhost" and domain == domain.lower():
        domain, path = "", f"{domain}/{path}"  # "library/busybox" names no registry
    if not domain or domain in _DOCKER:
        domain, path = "docker.io", path if "/" in path else f"library/{path}"
    return domain, path, match["tag"] or "", match["digest"] or ""


def credentials(image: str, secrets: Iterator[Mapping[str, Any]]) -> Iterator[RegistryAuth]:
    """Give the credentials of pull secrets (as stored, base64) that are for the image's registry, most specific key first."""
    found = [one for secret in secrets for one in of_auths(dict(_entries(secret)), image)]
    for _, auth in sorted(found, key=lambda one: -one[0]):
        yield auth


def repository(image: str) -> str:
    """Return registry and path, without tag and digest. Raises InvalidImageName."""
    domain, path, _, _ = _split(image)
    return f"{domain}/{path}"


def of_auths(auths: Mapping[str, Any], image: str) -> list[tuple[int, RegistryAuth]]:
    """Return those credentials, keyed by registry, that are for the image, with how much of its name each key covers."""
    found = []
    for registry, entry in auths.items():
        if isinstance(entry, dict) and (length := matches_registry(registry, image)) is not None:
            found.append((length, _auth(entry)))
    return found


def matches_registry(registry: str, image: str) -> int | None:
    """How much of the image's name the registry key ("*.example.com/team") covers, or None. Raises InvalidImageName."""
    domain, path, _, _ = _split(image)
    return _matches(registry, domain, path)


def _entries(secret: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    data = secret.get("data") or {}
    for member, inner in ((".dockerconfigjson", "auths"), (".dockercfg", "")):
        if member not in data:
            continue
        try:
            value = json.loads(base64.b64decode(data[member]))
        except (binascii.Error, ValueError):
            continue  # a broken secret is as good as none: the pull then says that it is not authorised
        value = value.get(inner) if inner and isinstance(value, dict) else value
        if isinstance(value, dict):
            yield from ((name, entry) for name, entry in value.items() if isinstance(entry, dict))


def _matches(registry: str, domain: str, path: str) -> int | None:
    """How much of the image's name the registry key covers, or None."""
    key = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, prefix = key.partition("/")
    if prefix in ("v1", "v2"):
        prefix = ""
    if host in _DOCKER and domain == "docker.io":
        host = domain
    wanted, has = host.split("."), domain.split(".")
    if len(wanted) != len(has) or not all(fnmatch.fnmatchcase(b, a) for a, b in zip(wanted, has, strict=True)):
        return None
    if prefix and not f"{path}/".startswith(f"{prefix}/"):
        return None
    return len(host) + len(prefix)


def _auth(entry: Mapping[str, Any]) -> RegistryAuth:
    user, password = entry.get("username") or "", entry.get("password") or ""
    if not user and entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
    # No server: containerd wants a URL there and refuses the plain host that secrets hold; the image names it anyway.
    return RegistryAuth(user, password, identity_token=entry.get("identitytoken") or "")
