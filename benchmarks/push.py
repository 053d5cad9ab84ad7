"""The data plane of mappers: what a value costs on its way from a worker to a server. `python -m benchmarks.push`

Values of 1,000 devices are offered as fast as they are taken, to servers in the same process that answer at once: what is printed is CPU (user and
system) of both ends.

influxdb2   line protocol over HTTP, in batches
http        a POST for each value
"""

from __future__ import annotations

import logging
import random
import resource
import sys
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from edgesite.mapper.driver import Device, Host, Property
from edgesite.mapper.push import Pusher, PushMeters
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealClock, RealNet, RealThreads, loop_factory
from edgesite.testing.waiting import until

DEVICES = 1000
VALUES = {"influxdb2": 50_000, "http": 5_000}
CHUNK = 5_000  #: offered at once: a channel holds twice as many
AT_MS = 1_700_000_000_000


def method(kind: str, port: int) -> dict[str, Any]:
    if kind == "http":
        return {"http": {"hostName": "http://127.0.0.1", "port": port, "requestPath": "/in"}}
    client = {"url": f"http://127.0.0.1:{port}", "org": "o", "bucket": "b"}
    data = {"measurement": "climate", "tag": {"hall": "1"}, "fieldKey": "temperature"}
    return {"dbMethod": {"influxdb2": {"influxdb2ClientConfig": client, "influxdb2DataConfig": data}}}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(kind: str) -> float:
    """Values a CPU second."""
    threads, registry = RealThreads(), CollectorRegistry()
    host = Host(RealNet(), RealClock(), threads, random.Random(1), logging.getLogger("push"))
    pusher = Pusher(host, {}, PushMeters(registry))

    def answer(request: Request) -> Response:
        return Response(204, {}, b"")

    def pushed() -> float:
        return registry.get_sample_value("edgesite_mapper_pushed_total", {"sink": kind}) or 0.0

    async with HttpServer(answer) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(pusher.run)
        listener = await server.listen(host.net, "127.0.0.1:0")
        push = method(kind, int(listener.address.rpartition(":")[2]))
        prop = Property("temperature", "float", False, push=push)
        devices = [Device("default", f"hall-{n}", "hall", "virtual", {}, (prop,)) for n in range(DEVICES)]
        begun, offered = cpu_s(), 0
        while offered < VALUES[kind]:
            for n in range(CHUNK):
                pusher.offer(devices[n % DEVICES], prop, str(20 + n / 100), AT_MS + offered + n)
            offered += CHUNK
            await until(lambda: pushed() >= offered, 60)  # noqa: B023 (awaited within the loop)
        used = cpu_s() - begun
        tasks.cancel_scope.cancel()
    await threads.close()
    return offered / used


def main() -> int:
    for kind in VALUES:
        rate = anyio.run(measure, kind, backend_options={"loop_factory": loop_factory()})
        print(f"{kind}: {rate:,.0f} values per CPU second, server included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
