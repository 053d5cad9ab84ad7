"""A node registers, again and again: what it hears, and what that costs the API."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from edgesite.cloud.edgecontroller.authorize import NodeRules
from edgesite.cloud.edgecontroller.upstream import Upstream
from edgesite.kube.errors import already_exists, not_found
from edgesite.wire.message import Message, MessageMaker, Operation

pytestmark = pytest.mark.anyio


class Api:
    """Nodes by name; counts what it is asked."""

    def __init__(self, **nodes: dict[str, Any]) -> None:
        self.nodes = nodes
        self.asked: list[str] = []

    async def get(self, _: Any, name: str, *__: Any) -> dict[str, Any]:
        self.asked.append("get")
        if name not in self.nodes:
            raise not_found("nodes", name)
        return {"metadata": {"name": name, **self.nodes[name]}}

    async def create(self, _: Any, node: dict[str, Any]) -> dict[str, Any]:
        self.asked.append("create")
        name = node["metadata"]["name"]
        if name in self.nodes:
            raise already_exists("nodes", name)
        self.nodes[name] = {}
        return node


class Objects:
    """What the cache has."""

    def __init__(self, *names: str) -> None:
        self.nodes: Any = {name: {} for name in names}


class Bus:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send(self, module: str, message: Message) -> None:
        assert module == "cloudhub"
        self.sent.append(message)


async def registered(api: Api, *cached: str) -> Any:
    """What node ``edge-1`` is answered."""
    bus: Any = Bus()
    objects: Any = Objects(*cached)
    client: Any = api
    maker = MessageMaker(lambda: 0.0, random.Random(1).getrandbits)
    upstream = Upstream(
        client,
        NodeRules(objects),
        bus,
        maker,
        lambda node: True,
        lambda node, uid: None,
        lambda: 0.0,
        logging.getLogger("test"),
        is_own=lambda node: True,
        lost=lambda node, version: None,
    )
    node = {"metadata": {"name": "edge-1"}, "status": {}}
    await upstream.handle(maker.make("edged", "meta", Operation.INSERT, "node/edge-1/default/node/edge-1", node))
    [answer] = bus.sent
    return answer.content


def reason(answer: Any) -> Any:
    return answer["Err"]["ErrStatus"]["reason"] if answer.get("Err") else ""


async def test_one_that_is_there_is_told_so_by_a_read() -> None:
    api = Api(**{"edge-1": {}})
    assert reason(await registered(api, "edge-1")) == "AlreadyExists"
    assert api.asked == ["get"]


async def test_a_new_one_is_written_without_a_look() -> None:
    api = Api()
    assert not reason(await registered(api))
    assert api.asked == ["create"]


async def test_a_cache_that_is_behind_misleads_nobody() -> None:
    gone = Api()
    assert not reason(await registered(gone, "edge-1"))
    assert gone.asked == ["get", "create"]
    came = Api(**{"edge-1": {}})
    assert reason(await registered(came)) == "AlreadyExists"
    assert came.asked == ["create"]


async def test_of_one_that_is_on_its_way_out_the_api_says_what_it_says() -> None:
    api = Api(**{"edge-1": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert reason(await registered(api, "edge-1")) == "AlreadyExists"
    assert api.asked == ["get", "create"]
