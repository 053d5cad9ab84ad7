"""The rules in a network namespace of their own: real iptables, and a connection that goes where they lead."""

from __future__ import annotations

import logging
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

from edgesite.cloud.cloudstream.tunnelport import ANNOTATION
from edgesite.cloud.iptablesmanager.manager import Manager, ports_elsewhere, run_program
from edgesite.cloud.iptablesmanager.rules import chain_of
from edgesite.net.real import RealClock

pytestmark = pytest.mark.anyio

NAMESPACE = f"esrules{os.getpid()}"
#: Connects, as kube-apiserver would, and prints what it is told.
CALL = "import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(s.recv(99).decode())"
LISTEN = (
    "import socket,sys; l=socket.create_server(('127.0.0.1', int(sys.argv[1]))); print('up', flush=True)\n"
    "while True: c=l.accept()[0]; c.sendall(b'stream server'); c.close()"
)


@pytest.fixture
def inside() -> Iterator[list[str]]:
    """The beginning of commands that run in the namespace."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        enter = ["ip", "netns", "exec", NAMESPACE]
        for words in ("link set lo up", "addr add 192.0.2.21/32 dev lo"):
            subprocess.run([*enter, "ip", *words.split()], check=True)
        yield enter
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


class Api:
    def __init__(self, uid: str = "one", **ports: int) -> None:
        self.uid = uid
        self.ports = ports

    async def get(self, *_: Any) -> dict[str, Any]:
        record = {"ipTunnelPort": {ip.replace("_", "."): port for ip, port in self.ports.items()}}
        import json

        return {"metadata": {"uid": self.uid, "annotations": {ANNOTATION: json.dumps(record)}}}


async def test_a_nodes_address_and_tunnel_port_lead_to_the_stream_server(inside: list[str]) -> None:
    import sys

    async def run(argv: Sequence[str]) -> tuple[int, str]:
        return await run_program([*inside, *argv])

    async def rules() -> list[str]:
        return (await run(["iptables", "-t", "nat", "-S"]))[1].splitlines()

    api: Any = Api(**{"127.0.0.1": 10351, "192.0.2.99": 10352})
    manager = Manager(api, 10003, RealClock(), random.Random(1), logging.getLogger("test"), run)
    await manager.settle()
    first = await rules()
    await manager.settle()
    assert await rules() == first, "nothing is made twice"
    assert sum("--dport" in one for one in first) == 2
    assert sum("kubeedge tunnel port" in one for one in first) == 2
    async with await anyio.open_process([*inside, sys.executable, "-c", LISTEN, "10003"]) as server:
        try:
            assert server.stdout is not None
            with anyio.fail_after(60):
                await server.stdout.receive()
            code, said = await run([sys.executable, "-c", CALL, "192.0.2.21", "10351"])
            assert (code, said) == (0, "stream server")
        finally:
            server.kill()
    api.ports = {"127.0.0.1": 10351}
    await run(["iptables", "-t", "nat", "-D", "OUTPUT", "1"])  # another program's work
    await manager.settle()
    mended = await rules()
    assert sum("--dport" in one for one in mended) == 1
    assert sum("kubeedge tunnel port" in one for one in mended) == 2


async def test_two_clusters_on_one_machine_leave_each_other_alone(inside: list[str]) -> None:
    async def run(argv: Sequence[str]) -> tuple[int, str]:
        return await run_program([*inside, *argv])

    async def destinations() -> list[str]:
        lines = (await run(["iptables", "-t", "nat", "-S"]))[1].splitlines()
        return sorted(f"{words[1]} {words[-1]}" for words in map(str.split, lines) if "DNAT" in words)

    def manager(uid: str, port: int, stream_port: int) -> Manager:
        api: Any = Api(uid, **{"192.0.2.21": port})
        return Manager(api, stream_port, RealClock(), random.Random(1), logging.getLogger("test"), run)

    for words in (
        "-N TUNNEL-PORT",
        *(f"-A TUNNEL-PORT -p tcp --dport 1035{n} -j DNAT --to-destination 192.0.2.21:100{n}3" for n in (0, 9)),
    ):
        assert (await run(["iptables", "-t", "nat", *words.split()]))[0] == 0  # as KubeEdge's manager makes them
    one, other = manager("one", 10350, 10003), manager("other", 10351, 10013)
    for _ in range(2):
        await one.settle()
        await other.settle()
        assert await destinations() == sorted(
            [
                f"{chain_of('one')} 192.0.2.21:10003",
                f"{chain_of('other')} 192.0.2.21:10013",
                "TUNNEL-PORT 192.0.2.21:10093",
            ]
        )
    assert await ports_elsewhere(None, "192.0.2.21", 10003, run) == {10351, 10359}
