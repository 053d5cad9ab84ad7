"""KubeEdge's Application: how a MetaServer and a dynamiccontroller speak where one of them is KubeEdge's.

    edge → cloud   resource "null", operation "null", source metaserver, group dynamiccontroller      content: an Application
    cloud → edge   resource "ignore/Application/ignore", operation "applicationResponse"              the same, answered
    both           resource "watchapp/sync": map of id → Application of the watches that live (since v1.13)

Byte fields are base64. Members that are not known are carried back as they came.

Source  KubeEdge v1.12.7, pkg/metaserver (Application, its verbs and keys), cloud/pkg/dynamiccontroller/application; v1.15 for keys that are
        plain paths, v1.13 for watchapp/sync. Recorded between its programs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from edgesite.wire.message import InvalidMessage, error_status
from edgesite.wire.resource import NO_NAMESPACE, is_path_part

__all__ = [
    "ANSWER",
    "ANSWERED",
    "ASKED",
    "SYNC",
    "Application",
    "Outcome",
    "Place",
    "answered",
    "guessed_kind",
    "is_late",
    "kind_word",
    "place_of",
    "query_of",
    "rejected",
]

ASKED: Final = "null"  #: resource and operation of a request
ANSWERED: Final = "ignore/Application/ignore"
ANSWER: Final = "applicationResponse"
SYNC: Final = "watchapp/sync"
_CORE: Final = "core"
#: plurals whose kind is not guessed
_KINDS: Final = {
    "endpoints": "Endpoints",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "services": "Service",
    "podstatus": "PodStatus",
    "nodestatus": "NodeStatus",
    "customresourcedefinitions": "CustomResourceDefinition",
    "customresourcedefinitionlist": "CustomResourceDefinitionList",
}
Content = Mapping[str, Any]


def guessed_kind(plural: str) -> str:
    """The kind that KubeEdge makes of a plural; not always the right one."""
    if plural in _KINDS:
        return _KINDS[plural]
    word = plural[:1].upper() + plural[1:]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("es"):
        return word[:-2]
    return word.removesuffix("s")


def kind_word(plural: str) -> str:
    """The type word of what a watch tells of."""
    return guessed_kind(plural).lower()


@dataclass(frozen=True, slots=True)
class Place:
    """Which resource a key speaks of; ``path`` instead, where it is a plain path of the API."""

    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def key(self) -> str:
        if self.path:
            return self.path
        parts = (
            self.group or _CORE,
            self.version,
            self.resource,
            self.namespace or NO_NAMESPACE,
            self.name or NO_NAMESPACE,
        )
        return "/" + "/".join(parts)

    def url(self, subresource: str = "") -> str:
        """The path at the API."""
        if self.path:
            return self.path
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespace:
            parts.append(f"namespaces/{self.namespace}")
        parts.append(self.resource)
        if self.name:
            parts.append(self.name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


_PLAIN: Final = ("/api", "/apis", "/version", "/healthz", "/livez", "/readyz", "/openapi")


def place_of(key: str) -> Place:
    """Read a key. Raises InvalidMessage."""
    parts = key.split("/")
    if any(key == one or key.startswith(one + "/") for one in _PLAIN):
        return Place(path=key)
    if len(parts) != 6 or parts[0] or not all(map(is_path_part, parts[1:])):
        raise InvalidMessage(f"no key of an object: {key!r:.80}")
    _, group, version, resource, namespace, name = parts
    return Place(
        "" if group == _CORE else group,
        version,
        resource,
        "" if namespace == NO_NAMESPACE else namespace,
        "" if name == NO_NAMESPACE else name,
    )


@dataclass(frozen=True, slots=True)
class Application:
    """A request as an edge makes it, or as the cloud reads it."""

    node: str
    key: str
    verb: str
    option: bytes = b""
    body: bytes = b""
    subresource: str = ""
    token: str = ""

    @property
    def id(self) -> str:
        parts = (self.node, self.key, self.verb, self.option, self.body, self.subresource, self.token)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.encode())
        return digest.hexdigest()

    def content(self) -> dict[str, Any]:
        """As v1.12.7 orders the members; receivers go by their names."""
        return {
            "ID": self.id,
            "Key": self.key,
            "Verb": self.verb,
            "Nodename": self.node,
            "Status": "InApplying",
            "Reason": "",
            "Option": _encoded(self.option),
            "ReqBody": _encoded(self.body),
            "RespBody": None,
            "Subresource": self.subresource,
            "Error": {"ErrStatus": {"metadata": {}}},
            "Token": self.token,
        }

    @classmethod
    def of(cls, content: Content) -> Application:
        """Raises InvalidMessage."""
        return cls(
            _text(content, "Nodename"),
            _text(content, "Key"),
            _text(content, "Verb"),
            _bytes(content, "Option"),
            _bytes(content, "ReqBody"),
            _text(content, "Subresource"),
            _text(content, "Token"),
        )

    def options(self) -> dict[str, Any]:
        """Raises InvalidMessage."""
        if not self.option:
            return {}
        try:
            found = msgspec.json.decode(self.option)
        except (ValueError, RecursionError) as exc:
            raise InvalidMessage(f"the options are no JSON: {exc}") from exc
        if not isinstance(found, dict | None):
            raise InvalidMessage("the options are no object")
        return found or {}


def is_late(content: Content) -> bool:
    """Whether its sender has given up on a request already: a v1.12 edge sends what it could not send while offline."""
    return content.get("Status") in ("Completed", "Failed") and bool(content.get("Reason"))


def query_of(options: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> str:
    """Options as the query of a URL; empty if there are none."""
    pairs = []
    for name, value in options.items():
        if name in ("kind", "apiVersion", *without) or value in (None, "", False):
            continue
        for one in value if isinstance(value, list) else [value]:
            pairs.append((name, "true" if one is True else str(one)))
    return f"?{urlencode(pairs)}" if pairs else ""


def answered(content: Content, body: bytes) -> dict[str, Any]:
    """The Application with what became of it."""
    return {**content, "Status": "Approved", "RespBody": _encoded(body)}


def rejected(content: Content, status: Content | None, reason: str = "") -> dict[str, Any]:
    """The Application refused: by the ``Status`` of an API error, else for a reason in words."""
    error = {"ErrStatus": status} if status is not None else {"ErrStatus": {"metadata": {}}}
    return {**content, "Status": "Rejected", "Reason": reason, "Error": error}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answered Application says: a body, the ``Status`` of an error, or a reason in words."""

    approved: bool
    body: bytes
    status: dict[str, Any] | None
    reason: str

    @classmethod
    def of(cls, content: Content) -> Outcome:
        """Raises InvalidMessage."""
        return cls(
            content.get("Status") == "Approved",
            _bytes(content, "RespBody"),
            error_status(content.get("Error")),
            _text(content, "Reason"),
        )


def _text(content: Content, name: str) -> str:
    value = content.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidMessage(f"{name} is no text")
    return value


def _bytes(content: Content, name: str) -> bytes:
    try:
        return base64.b64decode(_text(content, name), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f"{name} is no base64: {exc}") from exc


def _encoded(data: bytes) -> str | None:
    return base64.b64encode(data).decode() if data else None
