"""Discovery on the disk: kept once, however it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from test_metaserver_replica import opened

from edgesite.edge.metaserver.cloudlink import Phase
from edgesite.edge.metaserver.documents import Documents
from edgesite.kube.errors import ApiError
from edgesite.net.http import Headers, Request, Response

pytestmark = pytest.mark.anyio


class Cloud:
    """A link and what is at its end: indents where it is asked to, as API servers do."""

    connected = True
    phase = Phase.OWN

    async def settled(self) -> Phase:
        return self.phase

    async def request(self, request: Any, method: str, target: str, *_: Any, **__: Any) -> Any:
        pretty = "pretty=" in target or request.headers.get("user-agent") == "curl/8"
        return 200, {"content-type": "application/json"}, b"{ }" if pretty else b"{}"


async def ask(documents: Documents, target: str, agent: bytes = b"kubectl") -> Response:
    request = Request(None, "GET", target, Headers([(b"user-agent", agent)]), b"", None)  # type: ignore[arg-type]
    return await documents.answer(request, "")


async def test_queries_and_agents_do_not_write_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (replica, _):
        cloud = Cloud()
        ctx = type("Ctx", (), {"log": logging.getLogger("test"), "node_name": "n", "config": {}})()
        documents = Documents(ctx, replica, cloud, cloud)  # type: ignore[arg-type]
        assert (await ask(documents, "/apis/example.com/v1", b"curl/8")).body == b"{ }"
        await ask(documents, "/apis/example.com/v1?timeout=32s")
        written = replica._used
        for n in range(50):
            for path in ("/apis/example.com/v1", "/apis/example%2ecom/v1", "/apis/example.com/v1/"):
                await ask(documents, f"{path}?timeout={n}s")
                await ask(documents, f"{path}?x{n}=1&pretty={n}")
                await ask(documents, path, b"curl/8")
        assert replica._used == written
        cloud.connected = False
        for query in ("", "?timeout=5s", "?whatever=1"):
            kept = await ask(documents, f"/apis/example.com/v1{query}")
            assert (kept.body, kept.headers["x-edgesite-served-from"]) == (b"{}", "node-cache")  # type: ignore[index,call-overload]
        with pytest.raises(ApiError):
            await ask(documents, "/apis/other.example.com/v1")
