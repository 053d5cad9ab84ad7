"""Requests for which no module of the cloud runs are answered as each asker understands it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from link_site import SiteMaker
from raw_edge import RawEdge, raw_edge

pytestmark = pytest.mark.anyio


def application(verb: str, key: str) -> dict[str, Any]:
    return {
        "ID": f"id-of-{verb}",
        "Key": key,
        "Verb": verb,
        "Nodename": "edge-1",
        "Status": "InApplying",
        "Reason": "",
        "Option": "e30=",
        "ReqBody": None,
        "RespBody": None,
        "Subresource": "",
        "Error": {"ErrStatus": {"metadata": {}}},
        "Token": "",
    }


async def answer(edge: RawEdge, operation: str, path: str, content: Any, **route: str) -> dict[str, Any]:
    asked = await edge.say(operation, path, content, **route)
    return await edge.hear(lambda one: one["header"].get("parent_msg_id") == asked)


async def test_a_metaserver_of_kubeedge_is_told_at_once(make_site: SiteMaker) -> None:
    meta = {"source": "metaserver", "group": "dynamiccontroller"}
    async with make_site() as site, site.cloud(), raw_edge(site) as edge:
        for key in ("/core/v1/pods/default/web", "/version", "/apis"):  # the last two: passed through since v1.15
            sent = application("get", key)
            told = await answer(edge, "null", "null", sent, **meta)
            assert told["route"] == {
                "source": "dynamiccontroller",
                "group": "resource",
                "operation": "applicationResponse",
                "resource": "ignore/Application/ignore",
            }
            changed = {name: value for name, value in told["content"].items() if sent[name] != value}
            assert changed.keys() == {"Status", "Reason", "Error"}
            assert (changed["Status"], changed["Error"]["ErrStatus"]["code"]) == ("Rejected", 503)
        watches = {"a": application("watch", "/core/v1/nodes/null/null")}
        told = await answer(edge, "null", "watchapp/sync", watches, **meta)
        assert told["route"]["resource"] == "watchapp/sync"
        assert {name: one["Status"] for name, one in told["content"].items()} == {"a": "Rejected"}
        assert (await answer(edge, "null", "watchapp/sync", {}, **meta))["content"] == {}


async def test_others_of_kubeedge_hear_nothing_and_ours_an_error(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud():
        async with raw_edge(site) as edge:
            for source, operation in (("metaserver", "null"), ("bus", "upload"), ("strange", "query")):
                await edge.say(operation, "null", "no object", source=source, group="user")
            await edge.say("keepalive", "node", "ping", source="websocket", group="resource")
            with anyio.move_on_after(0.2):
                await edge.hear(lambda one: True)
                raise AssertionError("a Go edge would store it, or wonder")
        async with raw_edge(site, own=True) as edge:
            told = await answer(edge, "upload", "topic", "x", source="bus", group="user")
            assert (told["route"]["operation"], told["content"]["ErrStatus"]["code"]) == ("error", 503)
