"""The edge's database: tables, keys and the text in which objects are stored.

``meta`` and ``meta_v2`` are KubeEdge's and are read by its programs too; the tables called ``edgesite_*`` are ours, and theirs
leave them alone.

    meta               key "default/pod/web-0", type word, JSON text
    meta_v2            key "/core/v1/pods/default/web-0", for the MetaServer
    edgesite_outbox    reports that wait for a link, oldest first
    edgesite_ended     uids of objects that were deleted: no late message brings them back
    edgesite_scopes    what programs here have listed or watched, and up to which revision (`Replica`)
    edgesite_documents discovery and OpenAPI as read from the API

Source  KubeEdge v1.12.7, edge/pkg/metamanager/dao and its v2, edge/pkg/common/dbm; and what its edgecore left in a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube.gojson import go_json
from edgesite.wire.delivery import version_number
from edgesite.wire.resource import NO_NAMESPACE

__all__ = ["ENDED_KEPT", "TABLES", "MetaV2Key", "go_json", "meta_v2_key", "plural_of", "token_key"]

ENDED_KEPT: Final = 2048  #: rows in edgesite_ended

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS `meta` (`key` varchar(256) NOT NULL PRIMARY KEY,"
    " `type` varchar(32) NOT NULL DEFAULT '' , `value` text)",
    "CREATE TABLE IF NOT EXISTS `meta_v2` (`key` varchar(256) NOT NULL PRIMARY KEY,"
    " `groupversionresource` varchar(256) NOT NULL DEFAULT '' , `namespace` varchar(256) NOT NULL DEFAULT '' ,"
    " `name` varchar(256) NOT NULL DEFAULT '' , `resourceversion` bigint unsigned NOT NULL DEFAULT 0 , `value` text)",
    "CREATE TABLE IF NOT EXISTS `edgesite_outbox` (`seq` integer NOT NULL PRIMARY KEY, `key` text NOT NULL UNIQUE,"
    " `object` text NOT NULL, `message` text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS `edgesite_ended` (`seq` integer PRIMARY KEY AUTOINCREMENT, `uid` text NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS `edgesite_forgotten` (`key` text NOT NULL PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS `edgesite_scopes` (`key` text NOT NULL PRIMARY KEY, `revision` integer NOT NULL,"
    " `used` integer NOT NULL)",
    "CREATE TABLE IF NOT EXISTS `edgesite_documents` (`key` text NOT NULL PRIMARY KEY, `used` integer NOT NULL,"
    " `headers` text NOT NULL, `body` blob NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class MetaV2Key:
    """Where an object stands in ``meta_v2``."""

    key: str
    resource: str  #: "/v1, Resource=pods"
    namespace: str
    name: str
    version: int


_PLURALS: Final = {
    "Endpoints": "endpoints",
    "PodStatus": "podstatus",
    "NodeStatus": "nodestatus",
    "CustomResourceDefinition": "customresourcedefinitions",
    "CustomResourceDefinitionList": "customresourcedefinitionlist",
}


def plural_of(kind: str) -> str:
    """Return the plural as KubeEdge guesses it from the kind; keys are made with it."""
    if kind in _PLURALS:
        return _PLURALS[kind]
    word = kind.lower()
    if word.endswith("s"):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") else word + "s"


def meta_v2_key(obj: dict[str, Any]) -> MetaV2Key | None:
    """Return the place of an object in ``meta_v2``; None for one without kind or name, which has none."""
    kind, api_version = obj.get("kind"), obj.get("apiVersion")
    metadata = obj.get("metadata")
    if not isinstance(kind, str) or not isinstance(api_version, str) or not kind or not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or ""
    if not isinstance(name, str) or not name or not isinstance(namespace, str):
        return None
    plural = plural_of(kind)
    group, _, version = api_version.rpartition("/")
    return MetaV2Key(
        f"/{group or 'core'}/{version}/{plural}/{namespace or NO_NAMESPACE}/{name}",
        f"{group}/{version}, Resource={plural}",
        namespace,
        name,
        version_number(metadata.get("resourceVersion")),
    )


def token_key(namespace: str, service_account: str, request: dict[str, Any]) -> str:
    """Return the key of a service account token, the text that KubeEdge's edge makes of what was asked for."""
    spec = request.get("spec") or {}
    audiences = spec.get("audiences")
    listed = "(nil)" if audiences is None else f"{{{', '.join(_quoted(one) for one in audiences)}}}"
    bound = spec.get("boundObjectRef") or {}
    members = (("Kind", "kind"), ("APIVersion", "apiVersion"), ("Name", "name"), ("UID", "uid"))
    reference = ", ".join(f"{shown}:{_quoted(bound.get(member, ''))}" for shown, member in members)
    seconds = spec.get("expirationSeconds") or 0
    start = f"{_quoted(service_account)}/{_quoted(namespace)}/[]string{listed}/{seconds}"
    return f"{start}/v1.BoundObjectReference{{{reference}}}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
