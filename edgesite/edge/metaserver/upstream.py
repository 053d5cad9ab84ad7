"""One request to the API, whoever is at the other end of the link: a cloud of ours takes it whole, KubeEdge's as an Application.

Errors  ApiError: 503 without a link, 504 without an answer.
State   None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgesite.edge.metaserver.cloudlink import CloudLink, Phase, offline
from edgesite.kube.errors import ApiError
from edgesite.net.http import Request

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metaserver.kubeedge import KubeEdgeCloud
    from edgesite.edge.metaserver.memory import Memory

__all__ = ["Upstream"]

#: of a client's headers, what the API is to know
_PASSED_ON: Final = ("content-type", "user-agent", "if-none-match")
_AGENT: Final = "edgesite-metaserver"


class Upstream:
    """Sends requests up."""

    def __init__(self, ctx: Context, link: CloudLink, kubeedge: KubeEdgeCloud, memory: Memory) -> None:
        self._node = ctx.node_name
        self._link = link
        self._kubeedge = kubeedge
        self._memory = memory

    async def request(
        self,
        request: Request | None,
        method: str,
        target: str,
        accept: str,
        token: str,
        body: bytes = b"",
        *,
        encoding: str = "",
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request for a client, or our own. ``token``: the Authorization header with which it is to be carried out;
        ``encoding``: in which the answer may be."""
        headers = {"accept": accept, "user-agent": _AGENT}
        if request is not None:
            for name in _PASSED_ON:
                if (value := request.headers.get(name)) is not None:
                    headers[name] = value
        if encoding:
            headers["accept-encoding"] = encoding
        if token:
            headers["authorization"] = token
        phase = await self._link.settled()
        if phase is Phase.OFFLINE:
            raise offline(self._node)
        if phase is Phase.UNKNOWN:
            raise ApiError(504, "Timeout", "the cloud has not said anything yet")
        if phase is Phase.KUBEEDGE:
            return await self._kubeedge.request(method, target, headers, body)
        answer = await self._link.ask(method, target, headers, body)
        self._memory.passed(len(answer.body))
        return answer.status, answer.headers, answer.body
