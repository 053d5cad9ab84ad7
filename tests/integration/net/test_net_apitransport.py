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
from edgesite.net.real import RealClock, RealNet

pytestmark = pytest.mark.anyio


async def test_a_server_that_has_died_silently_holds_nobody_for_ever() -> None:
    net = RealNet()
    listener = await net.listen(asyncio.Protocol, "127.0.0.1:0")  # it takes everything and says nothing
    port = int(listener.address.rpartition(":")[2])
    transport = HttpTransport(net, RealClock(), Access(host="127.0.0.1", port=port, tls=False), answer_s=0.05)
    with anyio.fail_after(5), pytest.raises(ApiError, match="no answer from the API server") as caught:
        await Client(transport).get(PODS, "web", "default")
    assert caught.value.code == 503
    await transport.close()
    await listener.close()
