"""A cloud of KubeEdge's: requests become Applications, and what is watched arrives among the objects that metamanager stores.

KubeEdge's cloud does not tell a watch's revisions in order, forgets watches when it restarts, and v1.12 sends nothing of cluster-scoped kinds; so
a scope is listed when the watch begins and every `LIST_AGAIN_S`, and the differences are told as well.

Errors  ApiError; what such a cloud has no verb for is 405.
State   None.
Source  KubeEdge v1.12.7, pkg/metaserver and cloud/pkg/dynamiccontroller; recorded between its programs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import anyio

from edgesite.edge.metaserver.cloudlink import ANSWER_S, CloudLink, LinkLost, Phase
from edgesite.kube import json
from edgesite.kube.errors import ApiError, internal, method_not_allowed, unavailable
from edgesite.kube.rbac import Attributes, Verdict
from edgesite.kube.requestinfo import parse_path
from edgesite.wire import application
from edgesite.wire.application import Application, Outcome, Place
from edgesite.wire.message import InvalidMessage

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metaserver.scopekey import ScopeKey

__all__ = ["KubeEdgeCloud"]

LIST_AGAIN_S: Final = 300.0
_REVIEWS: Final = "authorization.k8s.io"
_JSON: Final = {"content-type": "application/json"}
_INTEGERS: Final = frozenset({"limit", "timeoutSeconds", "gracePeriodSeconds"})
_BOOLEANS: Final = frozenset({"watch", "allowWatchBookmarks", "force", "sendInitialEvents", "orphanDependents"})
_LISTS: Final = frozenset({"dryRun"})
_KINDS: Final = {
    "create": "CreateOptions",
    "update": "UpdateOptions",
    "patch": "PatchOptions",
    "delete": "DeleteOptions",
}


class KubeEdgeCloud:
    """Speaks Application."""

    def __init__(self, ctx: Context, link: CloudLink) -> None:
        self._node = ctx.node_name
        self._link = link

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Raises ApiError."""
        if "as=" in headers.get("accept", ""):
            raise ApiError(406, "NotAcceptable", "KubeEdge's cloud gives objects only as they are")
        path, _, query = target.partition("?")
        asked = self._application(method, path, query, headers, body)
        outcome = await self._apply(asked)
        if not outcome.approved:
            raise _refusal(outcome)
        answer = outcome.body
        if asked.verb == "delete" and not answer:
            answer = json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        return (201 if asked.verb == "create" else 200), _JSON, answer

    def _application(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Application:
        """Raises ApiError 405."""
        route = parse_path(path)
        options = _options(query)
        token = headers.get("authorization", "")
        if not route.resource:
            if method != "GET":
                raise method_not_allowed()
            return Application(self._node, path, "get", b"{}", token=token)
        verb = {"GET": "get" if route.name else "list", "POST": "create", "PUT": "update", "PATCH": "patch"}.get(
            method, "delete" if route.name and method == "DELETE" else ""
        )
        if not verb:
            raise method_not_allowed("KubeEdge's cloud has no verb for this")
        subresource = route.subresource
        if verb == "update" and subresource == "status":
            verb, subresource = "updatestatus", ""
        key = Place(route.group, route.version, route.resource, route.namespace, route.name).key()
        if verb == "delete" and body:
            sent = json.loads(body)
            options |= {name: value for name, value in sent.items() if name not in ("kind", "apiVersion")}
        named = _KINDS.get("update" if verb == "updatestatus" else verb)
        if named:
            options = {"kind": named, "apiVersion": "meta.k8s.io/v1", **options}
        if verb == "patch":
            options = {
                "Name": route.name,
                "PatchType": headers.get("content-type", "").partition(";")[0],
                "Data": base64.b64encode(body).decode(),
                "Options": options,
                "Subresources": [subresource],
            }
        sends = body if verb in ("create", "update", "updatestatus") else b""
        return Application(self._node, key, verb, json.dumps(options), sends, subresource, token)

    async def _apply(self, asked: Application) -> Outcome:
        """Raises ApiError."""
        maker = self._link.maker
        request = maker.make("metaserver", "dynamiccontroller", application.ASKED, application.ASKED, asked.content())
        answer = await self._link.exchange(request, ANSWER_S)
        try:
            return Outcome.of(answer.object())
        except InvalidMessage as exc:
            raise unavailable(f"the cloud's answer cannot be read: {exc}") from exc

    async def may(self, token: str, wanted: Attributes) -> Verdict:
        """Whether the bearer of a token may do something, by the API's own word to the bearer. Raises ApiError: 401 for a token that is none."""
        if wanted.is_resource:
            names = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
            spec = {"resourceAttributes": {name: value for name in names if (value := getattr(wanted, name))}}
        else:
            spec = {"nonResourceAttributes": {"verb": wanted.verb, "path": wanted.path}}
        review = {"kind": "SelfSubjectAccessReview", "apiVersion": f"{_REVIEWS}/v1", "spec": spec}
        place = Place(_REVIEWS, "v1", "selfsubjectaccessreviews")
        options = json.dumps({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"})
        asked = Application(self._node, place.key(), "create", options, json.dumps(review), token=f"Bearer {token}")
        outcome = await self._apply(asked)
        if not outcome.approved:
            raise _refusal(outcome)
        status = json.loads(outcome.body).get("status") or {}
        return Verdict(bool(status.get("allowed")), str(status.get("reason") or ""))

    async def watch(self, key: ScopeKey, token: str) -> None:
        """Have the cloud send what happens in a scope. Raises ApiError."""
        options: dict[str, Any] = {**key.query(), "watch": True}
        place = Place(key.kind.group, key.kind.version, key.kind.resource, key.namespace)
        outcome = await self._apply(Application(self._node, place.key(), "watch", json.dumps(options), token=token))
        if not outcome.approved:
            raise _refusal(outcome)

    async def until_listed_again(self) -> None:
        """Wait until a scope should be listed again. Raises LinkLost."""
        with anyio.move_on_after(LIST_AGAIN_S):
            while self._link.connected and self._link.phase is Phase.KUBEEDGE:
                await self._link.wait_change()
            raise LinkLost


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=False):
        if name in _INTEGERS and value.isascii() and value.isdigit():
            found[name] = int(value)
        elif name in _BOOLEANS:
            found[name] = value not in ("false", "0")
        elif name in _LISTS:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def _refusal(outcome: Outcome) -> ApiError:
    if outcome.status is not None:
        return ApiError.from_status(outcome.status)
    return internal(outcome.reason or "the cloud refused the request")
