"""What the MetaServer of a node serves besides: kind ``greetings``, answered here whether there is a link or not, and a filter.

kubectl --server http://127.0.0.1:10550 get greetings
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube.errors import forbidden, method_not_allowed, not_found
from edgesite.kube.resources import Resource
from edgesite.net.http import Response
from edgesite_example.tags import STRICT

if TYPE_CHECKING:
    from edgesite.kube.requestinfo import RequestInfo
    from edgesite.net.http import Request

GREETINGS: Final = Resource(
    "example.edgesite.io", "v1", "Greeting", "greetings", namespaced=False, verbs=("get", "list")
)
NAME: Final = "hello"


class NodeApi:
    name = "greetings"

    def __init__(self, greeting: str) -> None:
        self._greeting = greeting

    def resources(self) -> Iterable[Resource]:
        return [GREETINGS]

    def admit(self, info: RequestInfo, user: Any) -> None:
        """Programs on a node delete nothing in the strict namespace, whatever the cloud would allow."""
        route = info.route
        if info.verb in ("delete", "deletecollection") and route.namespace == STRICT:
            raise forbidden(
                route.resource, route.name, f"namespace {STRICT} is only changed from the cloud", route.group
            )

    async def serve(self, request: Request, info: RequestInfo, user: Any) -> Response:
        if info.verb == "list":
            return _json({**_typed("GreetingList"), "metadata": {"resourceVersion": "1"}, "items": [self._object()]})
        if info.verb != "get":
            raise method_not_allowed()
        if info.route.name != NAME:
            raise not_found(GREETINGS.plural, info.route.name, GREETINGS.group)
        return _json(self._object())

    def _object(self) -> dict[str, Any]:
        return {**_typed("Greeting"), "metadata": {"name": NAME}, "text": self._greeting}


def _typed(kind: str) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": GREETINGS.api_version}


def _json(body: dict[str, Any]) -> Response:
    return Response(200, {"content-type": "application/json"}, json.dumps(body).encode())
