"""What is not a resource: discovery, OpenAPI, version, health and metrics.

Errors  ApiError.
State   Encoded documents, kept until the table of kinds changes; OpenAPI's are large and kept compressed by `edgesite.kube.openapi`.
Source  Kubernetes API concepts (discovery); API health endpoints.
"""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.call import answer
from edgesite.apiserver.kinds import NOT_SERVED
from edgesite.kube import discovery, errors, json
from edgesite.kube.errors import ApiError
from edgesite.kube.negotiate import negotiate
from edgesite.net.http import Response
from edgesite.net.machine import architecture

if TYPE_CHECKING:
    from edgesite.apiserver.authn import User
    from edgesite.apiserver.kinds import Kinds
    from edgesite.net.http import Request

__all__ = ["Documents", "version_info"]

Object = dict[str, Any]
Endpoint = Callable[["Request", str], Response | Awaitable[Response]]
MINOR: Final = 36
_NO_CACHE: Final = b"cache-control: no-cache, private\r\n"


def version_info(version: str) -> Object:
    """What /version says: the Kubernetes version that is spoken, with our own behind it."""
    python = platform.python_version()
    return {
        "major": "1",
        "minor": str(MINOR),
        "emulationMajor": "1",
        "emulationMinor": str(MINOR),
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": str(MINOR - 1),
        "gitVersion": f"v1.{MINOR}.0+edgesite.{version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{python}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"{platform.system().lower()}/{architecture()}",
    }


class Documents:
    """Answers non-resource requests. Others add endpoints with `add`."""

    def __init__(self, kinds: Kinds, *, version: str, address: str) -> None:
        self._kinds = kinds
        self._address = address
        self._cached: dict[str, bytes] = {}
        self._cached_version = -1
        self._version = json.dumps(version_info(version))
        self._endpoints: dict[str, Endpoint] = {"/version": self._show_version, "/api": self._api, "/apis": self._apis}
        self._prefixes: list[tuple[str, Endpoint]] = []

    def add(self, path: str, endpoint: Endpoint, *, below: bool = False) -> None:
        """Serve ``path``, with all that is ``below`` it or alone; the endpoint gets what follows the path."""
        self._endpoints[path] = endpoint
        if below:
            self._prefixes.append((path + "/", endpoint))

    def answer(self, request: Request, user: User) -> Response | Awaitable[Response]:
        """Raises ApiError."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        path = request.path.rstrip("/") or "/"
        endpoint = self._endpoints.get(path)
        if endpoint is not None:
            return endpoint(request, "")
        for prefix, below in self._prefixes:
            if path.startswith(prefix):
                return below(request, path[len(prefix) :])
        if path == "/":
            return self._root(request)
        return self._group(request, path)

    def _document(self, request: Request, key: str, make: Callable[[], Object]) -> Response:
        """Answer with a document that is made once per state of the table. Raises ApiError."""
        if self._cached_version != self._kinds.version:
            self._cached.clear()
            self._cached_version = self._kinds.version
        body = self._cached.get(key)
        if body is None:
            body = self._cached[key] = json.dumps(make())
        view = negotiate(request.headers.get("accept"), tables=False)
        return answer(request, body, view=view)

    def _root(self, request: Request) -> Response:
        rows = self._kinds.rows()
        groups = sorted({row.base_path for row in rows} | {f"/apis/{row.group}" for row in rows if row.group})
        paths = ["/api", "/api/v1", "/apis", *(path for path in groups if path != "/api/v1"), *sorted(self._endpoints)]
        return self._document(request, "/", lambda: {"paths": list(dict.fromkeys(paths))})

    def _show_version(self, request: Request, rest: str) -> Response:
        return answer(request, self._version)

    def _api(self, request: Request, rest: str) -> Response:
        return self._aggregated(request, True) or self._document(
            request, "/api", lambda: discovery.api_versions(self._address)
        )

    def _apis(self, request: Request, rest: str) -> Response:
        return self._aggregated(request, False) or self._document(
            request, "/apis", lambda: discovery.group_list(self._kinds.rows())
        )

    def _aggregated(self, request: Request, core: bool) -> Response | None:
        """Answer with all at once where the client prefers that."""
        version = _aggregated_version(request.headers.get("accept") or "")
        if version is None:
            return None
        key = f"{core}/{version}"
        rows = self._kinds.rows()
        made = self._document(_Plain(request), key, lambda: discovery.aggregated(rows, core, version))  # type: ignore[arg-type]
        media = discovery.AGGREGATED_MEDIA_TYPE.format(version)
        made.headers = _NO_CACHE + b"vary: Accept\r\ncontent-type: %b\r\n" % media.encode()
        return made

    def _group(self, request: Request, path: str) -> Response:
        parts = path.strip("/").split("/")
        rows = self._kinds.rows()
        try:
            if parts[0] == "api" and len(parts) == 2:
                return self._document(request, path, lambda: discovery.resource_list(rows, "", parts[1]))
            if parts[0] == "apis" and len(parts) == 2:
                return self._document(request, path, lambda: discovery.group(rows, parts[1]))
            if parts[0] == "apis" and len(parts) == 3:
                return self._document(request, path, lambda: discovery.resource_list(rows, parts[1], parts[2]))
        except LookupError:
            pass
        raise ApiError(404, "NotFound", NOT_SERVED, {})


class _Plain:
    """A request whose Accept header was dealt with already."""

    def __init__(self, request: Request) -> None:
        self.headers: Mapping[str, str] = {}
        self.raw_query, self.query = request.raw_query, request.query


def _aggregated_version(accept: str) -> str | None:
    """The version of aggregated discovery that comes before plain JSON in an Accept header."""
    for clause in accept.split(","):
        media, *params = (part.strip() for part in clause.split(";"))
        if media not in ("application/json", "*/*"):
            continue
        given = dict(one.partition("=")[::2] for one in params)
        if given.get("as") == "APIGroupDiscoveryList" and given.get("g") == "apidiscovery.k8s.io":
            if given.get("v") in ("v2", "v2beta1"):
                return given["v"]
        elif "as" not in given:
            return None
    return None
