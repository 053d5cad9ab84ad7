"""A network that swallows everything ends the link by itself: no answer is needed to tell, which a cloud of KubeEdge would not give."""

from __future__ import annotations

import base64
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from link_site import SiteMaker, node_object

from edgesite.edge.edgehub import dialling
from edgesite.kube.resources import SECRETS
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio
_SO_ATTACH_FILTER = 26
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0, which is how much of a segment to keep


@contextmanager
def swallowed(port: int) -> Iterator[int]:
    """Have the kernel drop what comes for connections that this process has taken on a port, before TCP sees it; gives how many (copies of) sockets."""
    taken = list(own_sockets(port))
    program = ctypes.create_string_buffer(_DROP)
    for sock in taken:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
    try:
        yield len(taken)
    finally:
        for sock in taken:
            sock.close()


def own_sockets(port: int) -> Iterator[socket.socket]:
    """Copies of this process's TCP sockets that are connected by this port of its own."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # the one that the listing itself used
            continue
        try:
            found = sock.family == socket.AF_INET and bool(sock.getpeername()) and sock.getsockname()[1] == port
        except OSError:
            found = False
        if found:
            yield sock
        else:
            sock.close()


async def test_a_link_whose_data_nobody_acknowledges_is_given_up(
    make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dialling, "_UNACKNOWLEDGED_S", 0.5)
    async with make_site(single_process=False) as site, site.cloud() as client:
        secret = await client.get(SECRETS, "tokensecret", "kubeedge")
        site.token = base64.b64decode(secret["data"]["tokendata"]).decode()
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
                await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            with swallowed(site.hub_port) as count:
                assert count
                with anyio.fail_after(DEADLINE_S):  # asked again over a new link
                    assert (await edge.meta.query_remote("node", "", "edge-1"))["metadata"]["name"] == "edge-1"
    assert [one for one in caplog.messages if one.startswith("the connection to the cloud ended")]
