"""What a join token gives: names that are free, or the one that it is for; and how tokens come and go."""

from __future__ import annotations

import base64
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, node_object
from test_link_tls import ask, read_token

from edgesite.cli.main import main
from edgesite.client import Client
from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.cloudhub.authority import Authority, AuthorityKeeper
from edgesite.context import Section
from edgesite.kube import json
from edgesite.kube.resources import NODES, SECRETS
from edgesite.net import pem
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealThreads
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio


async def applied(site: Site, token: str, node: str, *, legacy: bool = False) -> tuple[int, bytes]:
    subject = ("kubeedge.io", ["kubeEdge"]) if legacy else (f"system:node:{node}", ["system:nodes"])
    made = await RealPki(RealClock()).make_csr(subject[0], organizations=subject[1])
    headers = {"Authorization": f"Bearer {token.split('.', 1)[1]}", "NodeName": node}
    return await ask(site, "GET", "/edge.crt", headers, pem.to_der(made.request))


async def ca_of(client: Client) -> tuple[bytes, bytes]:
    data = (await client.get(SECRETS, "casecret", "kubeedge"))["data"]
    return base64.b64decode(data["cadata"]), base64.b64decode(data["cakeydata"])


@pytest.mark.parametrize("legacy", [False, True], ids=["v1.23.1", "v1.12.7"])
async def test_a_node_that_has_a_certificate_is_not_given_to_another(make_site: SiteMaker, legacy: bool) -> None:
    """KubeEdge gives whoever holds the token a certificate for any node."""
    async with make_site(single_process=False) as site:
        site.values["cloud"]["modules"]["cloudHub"]["rejoin"] = "strict"
        async with site.cloud() as client:
            token = await read_token(client)
            assert (await applied(site, token, "edge-1", legacy=legacy))[0] == 200
            assert (await applied(site, token, "edge-1", legacy=legacy))[0] == 200, "a join that was cut short goes on"
            await client.create(NODES, node_object("edge-1"))
            await client.create(NODES, node_object("edge-2"))
            with anyio.fail_after(DEADLINE_S):
                while (answer := await applied(site, token, "edge-1", legacy=legacy))[0] == 200:  # noqa: ASYNC110
                    await anyio.sleep(0.01)  # until the cache has the Node
            assert answer == (
                401,
                b"node edge-1 exists and has a certificate: delete the Node, or join with a token of its own"
                b" (edgesite token create --node edge-1)",
            )
            assert (await applied(site, token, "edge-2", legacy=legacy))[0] == 200, "a Node that was made beforehand"
            own = jointoken.make(*await ca_of(client), int(time.time()) + 60, "edge-1")
            assert (await applied(site, own, "edge-1", legacy=legacy))[0] == 200
            assert (await applied(site, own, "edge-2"))[1] == b"the token is for node edge-1 alone"
            assert (await applied(site, own, "edge-9"))[0] == 401
        async with site.cloud() as client:  # it is remembered over a restart
            token = await read_token(client)
            with anyio.fail_after(DEADLINE_S):
                while (await ask(site, "GET", "/node/edge-1", {}))[0] != 200:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert (await applied(site, token, "edge-1"))[0] == 401
            await client.delete(NODES, "edge-1")
            with anyio.fail_after(DEADLINE_S):
                while (await applied(site, token, "edge-1"))[0] != 200:  # noqa: ASYNC110
                    await anyio.sleep(0.01)


async def test_an_edge_that_lost_its_key_joins_by_a_token_of_its_own(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(make_site(single_process=False))
        site.values["cloud"]["modules"]["cloudHub"]["rejoin"] = "strict"
        client = await stack.enter_async_context(site.cloud())
        site.token = await read_token(client)
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
        for file in (site.folder / "edge-1/pki").iterdir():
            file.unlink()
        async with site.edge() as edge:
            await until(lambda: "exists and has a certificate" in caplog.text)
            assert not edge.meta.connected
        kubeconfig = site.values["api"]["adminKubeconfig"]
        arguments = ["token", "create", "--node", "edge-1", "--ttl", "10m", "--kubeconfig", kubeconfig]
        assert await anyio.to_thread.run_sync(main, arguments) == 0
        site.token = capsys.readouterr().out.strip()
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
    for wrong in (["--node", "Edge 1"], ["--ttl", "soon"], ["--ttl", "0s"]):
        assert main(["token", "create", *wrong]) == 2
    assert main(["token", "--node", "edge-1"]) == 2


class At:
    """A clock that stands."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


class Secrets:
    def __init__(self) -> None:
        self.token = b""

    async def create(self, _: Any, secret: dict[str, Any]) -> None:
        await self.patch(_, secret["metadata"]["name"], secret)

    async def patch(self, _: Any, name: str, secret: dict[str, Any], *more: Any) -> None:
        assert name == "tokensecret"
        self.token = base64.b64decode(secret["data"]["tokendata"])


async def test_tokens_are_renewed_twice_in_their_life() -> None:
    clock, secrets, threads = At(1_800_000_000.0), Secrets(), RealThreads()
    pki = RealPki(RealClock())
    pair = await pki.make_ca("KubeEdge")
    authority = Authority(pair, pair)
    config = Section({"tokenRefreshDuration": 12})
    keeper = AuthorityKeeper(secrets, config, pki, threads, clock)  # type: ignore[arg-type]
    assert await keeper.renew_token(authority) == 12 * 3600
    first = secrets.token.decode().split(".", 1)[1]
    payload = json.loads(base64.urlsafe_b64decode(first.split(".")[1] + "=="))
    assert payload == {"exp": 1_800_000_000 + 24 * 3600}
    clock.now += 12 * 3600
    await keeper.renew_token(authority)
    second = secrets.token.decode().split(".", 1)[1]
    assert second != first
    for jwt, end in ((first, 24), (second, 36)):
        assert jointoken.check(jwt, authority.ca_key_der, 1_800_000_000 + end * 3600 - 1) == ""
        with pytest.raises(jointoken.InvalidToken, match="expired"):
            jointoken.check(jwt, authority.ca_key_der, 1_800_000_000 + end * 3600)
    clock.now = 1_000_000.0  # a clock that was never set
    before = secrets.token
    assert await keeper.renew_token(authority) == 10.0
    assert secrets.token == before
    await threads.close()
