"""What a request asks for, read from its method and path alone: verb, resource, namespace, name, subresource.

Errors  None: a path that names no resource is a non-resource request.
State   None.
Source  Kubernetes API concepts (resource URIs, API verbs); the attributes are those that authorisation speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["RequestInfo", "Route", "parse_path", "request_info"]

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
#: What may follow ``/namespaces/NAME/`` and still be about the namespace itself.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed path. For a non-resource path ``resource`` is "". ``rest`` is what follows a subresource (proxies)."""

    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch: bool = False  #: the old form with ``/watch/`` in the path


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A route with its verb, as authorisation sees it; for non-resource paths the verb is the method in lower case."""

    verb: str
    route: Route

    @property
    def is_resource(self) -> bool:
        return bool(self.route.resource)


def parse_path(path: str) -> Route:
    """Return the route of a request path (without query, still percent-encoded)."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return Route(path)
    watch = parts[0] == "watch"
    if watch:
        parts = parts[1:]
        if not parts:
            return Route(path)
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    resource, name, subresource, rest = (*parts[:3], *[""] * (3 - len(parts[:3])), "/".join(parts[3:]))
    return Route(path, group, version, namespace, resource, name, subresource, rest, watch)


def request_info(method: str, route: Route, *, watch: bool) -> RequestInfo:
    """``watch`` tells whether the query asks for a watch."""
    if not route.resource:
        return RequestInfo(method.lower(), route)
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and (route.watch or (watch and not route.name)):
        verb = "watch"
    elif verb == "get" and not route.name:
        verb = "list"
    elif verb == "delete" and not route.name:
        verb = "deletecollection"
    return RequestInfo(verb, route)
