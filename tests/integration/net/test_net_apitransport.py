"""The transport to a remote API server, when that server does not answer."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from edgesite.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.kubeconfig import Access
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PODS
from edgesite.net.http import HttpServer, Response
from edgesite.net.real import RealClock, RealNet

pytestmark = pytest.mark.anyio


async def test_a_server_that_has_died_silently_holds_nobody_for_ever() -> None:
    net = RealNet()
    listener = await net.listen(asyncio.Protocol, "127.0.0.1:0")  # it takes everything and says nothing
    port = int(listener.address.rpartition(":")[2])
    transport = HttpTransport(net, RealClock(), Access(host="127.0.0.1", port=port, tls=False), answer_s=0.05)
    with anyio.fail_after(60), pytest.raises(ApiError, match="no answer from the API server") as caught:
        await Client(transport).get(PODS, "web", "default")
    assert caught.value.code == 503
    await transport.close()
    await listener.close()


@pytest.mark.parametrize("busy", [2, 1000])
async def test_a_busy_server_is_asked_again_when_it_says(busy: int) -> None:
    answers = [Response(429, {"retry-after": "1"}, b'{"code": 429}')] * busy
    answers.append(Response(200, {"content-type": "application/json"}, b'{"kind": "Pod"}'))
    asked = iter(answers)
    clock = HastyClock()
    async with HttpServer(lambda _: next(asked)) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0")
        port = int(listener.address.rpartition(":")[2])
        transport = HttpTransport(RealNet(), clock, Access(host="127.0.0.1", port=port, tls=False))
        status, _, _ = await transport.request("GET", "/api/v1/pods", {})
        await transport.close()
    assert status == (200 if busy == 2 else 429)
    assert len(clock.slept) == (2 if busy == 2 else 9)
    assert all(1 <= one <= 1.5 for one in clock.slept)


class HastyClock(RealClock):
    """Does not sleep, but remembers for how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
