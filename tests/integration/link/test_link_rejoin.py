"""A machine that was reset or re-imaged joins again under its old name, and its former certificate counts no more."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, node_object
from test_link_revocation import LEGACY, NAMED, refused, remembered
from test_link_tls import certificate, dial, read_token
from test_link_tokens import applied

from edgesite.client import Client
from edgesite.cloud.cloudhub.rejoin import REASON, Rejoin
from edgesite.kube.resources import EVENTS, NODES
from edgesite.net import pem
from edgesite.net.pki import KeyPair
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio


async def set_ready(client: Client, status: str) -> None:
    await client.patch(
        NODES, "edge-1", {"status": {"conditions": [{"type": "Ready", "status": status}]}}, subresource="status"
    )


async def asked_until(site: Site, token: str, part: bytes) -> None:
    """Ask for a certificate until it is refused for this reason: the cache is a moment behind."""
    with anyio.fail_after(DEADLINE_S):
        while part not in (answer := await applied(site, token, "edge-1"))[1]:
            assert answer[0] in (200, 401)
            await anyio.sleep(0.01)


@pytest.mark.parametrize("identity", [NAMED, LEGACY], ids=["v1.23.1", "v1.12.7"])
async def test_a_node_that_is_not_there_may_join_anew(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, identity: tuple[str, str]
) -> None:
    async with make_site(single_process=False) as site:
        async with site.cloud() as client:
            token = await read_token(client)
            old = await certificate(site, client, *identity, node="edge-1")
            await client.create(NODES, node_object("edge-1"))
            await set_ready(client, "True")
            socket = await dial(site, old, {"node_id": "edge-1"})
            await asked_until(site, token, b"edge-1 is connected: stop it there first")
            socket.close_nowait()  # it stops, in order: that it is Ready is old news
            with anyio.fail_after(DEADLINE_S):
                while (answer := await applied(site, token, "edge-1", legacy=identity is LEGACY))[0] != 200:
                    assert b"connected" in answer[1]
                    await anyio.sleep(0.01)
            assert "has joined anew" in await refused(site, old)
            serial = f"{pem.facts(pem.from_der(answer[1])).serial:x}"
            assert (
                f"node edge-1 has joined anew from 127.0.0.1: only its new certificate (serial {serial})" in caplog.text
            )
            with anyio.fail_after(DEADLINE_S):
                while not (found := [one for one in (await client.list(EVENTS))["items"] if one["reason"] == REASON]):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert (found[0]["type"], found[0]["involvedObject"]["name"]) == ("Warning", "edge-1")
            assert serial in found[0]["message"]
            new = await certificate(site, client, *identity, node="edge-1")
            assert await refused(site, new) == ""
        async with site.cloud() as client:  # it is remembered over a restart
            assert "has joined anew" in await refused(site, old)
            await asked_until(site, token, b"edge-1 is Ready: stop it there")
            assert await refused(site, new) == "", "a refusal changes nothing"
            await set_ready(client, "Unknown")
            with anyio.fail_after(DEADLINE_S):
                while (await applied(site, token, "edge-1"))[0] != 200:  # noqa: ASYNC110
                    await anyio.sleep(0.01)


async def test_an_edge_that_lost_its_disk_comes_back_by_itself(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        pki = site.folder / "edge-1/pki"
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            await set_ready(client, "True")
            old = KeyPair((pki / "node.crt").read_bytes(), (pki / "node.key").read_bytes())
        for file in pki.iterdir():
            file.unlink()
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            assert "has joined anew" in await refused(site, old)
            await remembered(client, "edge-1", "barred")


class Nobody:
    """A hub that has seen nobody, or has heard the last goodbye of all."""

    def __init__(self, *, left: bool) -> None:
        self.left = left

    def is_connected(self, node: str) -> bool:
        return False

    def has_left(self, node: str) -> bool:
        return self.left


class Taken:
    def is_taken(self, node: str) -> bool:
        return True


class Caches:
    def __init__(self, ready: str) -> None:
        self.nodes = {"edge-1": {"status": {"conditions": [{"type": "Ready", "status": ready}]}}}


@pytest.mark.parametrize(
    ("ready", "left", "shared", "why"),
    [
        ("True", True, False, ""),
        ("True", True, True, "is Ready"),  # it may have gone to another instance
        ("True", False, False, "is Ready"),
        ("Unknown", False, True, ""),
        ("False", False, False, ""),
        (None, True, False, "not known yet"),
    ],
)
async def test_what_is_known_of_it_decides(ready: str | None, left: bool, shared: bool, why: str) -> None:
    objects: Any = None if ready is None else Caches(ready)
    made = Rejoin(
        Taken(),  # type: ignore[arg-type]
        lambda: objects,
        Nobody(left=left),
        None,  # type: ignore[arg-type]
        logging.getLogger(),
        is_strict=False,
        is_shared=shared,
    )
    said = made.refusal("edge-1")
    assert why in said
    assert bool(said) == bool(why)
