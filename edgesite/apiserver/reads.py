"""get, list and watch: answered without a task, from memory.

Errors  ApiError.
State   None.
Source  Kubernetes API concepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.apiserver.call import JSON_HEADERS, Call, answer
from edgesite.apiserver.watch import WatchWanted
from edgesite.kube import errors
from edgesite.kube.negotiate import DEFAULT_VIEW, Form, View, negotiate
from edgesite.kube.options import ListOptions, parse_revision
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.views import Views
    from edgesite.apiserver.watch import Watches
    from edgesite.net.http import Request

__all__ = ["PLAIN_ACCEPT", "Reads", "view_of"]

#: What asks for an object as it is stored.
PLAIN_ACCEPT: Final = frozenset(
    {"application/json", "*/*", "application/json, */*", "application/vnd.kubernetes.protobuf,application/json"}
)


def view_of(request: Request) -> View:
    """Return the view that a request wants of objects. Raises ApiError."""
    accept = request.headers.get("accept")
    if accept is None or accept in PLAIN_ACCEPT:
        return DEFAULT_VIEW
    include = request.query.get("includeObject", [""])[0] if request.raw_query else ""
    view = negotiate(accept, include=include)
    if view.form is Form.TABLE and include not in ("", "None", "Metadata", "Object"):
        raise errors.bad_request(f'unrecognized includeObject value: "{include}"')
    return view


class Reads:
    """Answers reads from the registry."""

    def __init__(self, registry: Registry, views: Views, watches: Watches) -> None:
        self.store = registry.store
        self._registry = registry
        self._views = views
        self._watches = watches

    def get(self, call: Call) -> Response:
        """Answer with one object. Raises ApiError."""
        request, route = call.request, call.route
        revision = None
        if request.raw_query:
            revision = parse_revision(request.query.get("resourceVersion", [""])[0])
        view = view_of(request)
        if view.form is Form.PARTIAL_LIST:
            raise errors.not_acceptable("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
        row = self._registry.row(call.kind, route.namespace, route.name, revision)
        return answer(request, self._views.object(call.kind, row, view), view=view)

    def list(self, call: Call) -> Response:
        """Answer with a list. Raises ApiError."""
        request = call.request
        options = ListOptions.of(request.query if request.raw_query else {}, watch=False)
        view = view_of(request)
        if view.form is Form.PARTIAL:
            raise errors.not_acceptable("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
        listed = self._registry.list(call.kind, call.route.namespace, options)
        return answer(request, self._views.list(call.kind, listed, view), view=view)

    def watch(self, call: Call) -> None:
        """Begin to stream changes. Raises ApiError, ClosedByPeer."""
        request, route = call.request, call.route
        options = ListOptions.of(request.query if request.raw_query else {}, watch=True)
        if route.name:
            options = options.named(route.name)
        view = self._watch_view(request)
        wanted = WatchWanted(call.kind, route.namespace, options, view)
        self._watches.open(
            wanted, lambda close, drain: request.open_stream(200, JSON_HEADERS, on_close=close, on_drain=drain)
        )

    def _watch_view(self, request: Request) -> View:
        """A watch is JSON whatever else is offered; metadata is asked for under either name. Raises ApiError."""
        view = view_of(request)
        form = Form.PARTIAL if view.form is Form.PARTIAL_LIST else view.form
        return DEFAULT_VIEW if form is Form.OBJECT else View(form, view.version, include=view.include)
