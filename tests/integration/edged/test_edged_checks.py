"""Probes over gRPC and hooks over HTTP, against real servers on this host; the containers are a fake runtime's."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from edged_site import is_ready

from edgesite.context import Context
from edgesite.edge.edged.grpccheck import grpc_health
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.edgedrig import Rig, edged_rig
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """grpc.health.v1 with one service, "app", whose state a test may change."""

    def __init__(self) -> None:
        self.status = 1

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        def check(request: bytes, context: Any) -> bytes:
            if request != b"\x0a\x03app":
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return bytes((8, self.status))

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.fixture
def health() -> Iterator[tuple[Health, int]]:
    # With threads: grpcio's asyncio side is shared by all loops of a process, and trips over those that have ended.
    made = Health()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(made,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, port
    server.stop(None).wait()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    engine = FakeEngine(RealClock(), images=[IMAGE])

    def runtime(ctx: Context) -> FakeRuntime:
        return FakeRuntime(engine)

    async with edged_rig(runtime, tmp_path, settings={"nodeIP": "127.0.0.1"}) as started:
        yield started


async def test_the_words_of_a_health_service(health: tuple[Health, int]) -> None:
    served, port = health
    address = f"127.0.0.1:{port}"
    assert await grpc_health(RealNet(), address, "app", 5.0) == "SERVING"
    served.status = 2
    assert await grpc_health(RealNet(), address, "app", 5.0) == "NOT_SERVING"
    served.status = 77
    assert await grpc_health(RealNet(), address, "app", 5.0) == "77"
    with pytest.raises(OSError, match="NOT_FOUND"):
        await grpc_health(RealNet(), address, "other", 5.0)
    with pytest.raises(OSError, match="UNAVAILABLE"):
        await grpc_health(RealNet(), "127.0.0.1:1", "app", 5.0)


async def test_a_grpc_probe_follows_the_service(rig: Rig, health: tuple[Health, int]) -> None:
    served, port = health
    served.status = 2
    probe = {"grpc": {"port": port, "service": "app"}, "periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 1}
    containers = [{"name": "main", "image": IMAGE, "readinessProbe": probe}]
    await rig.cloud.apply("pod", {"metadata": {"name": "web"}, "spec": {"containers": containers, "hostNetwork": True}})

    def heard(words: str) -> bool:
        return any(words in one["message"] for one in rig.cloud.events.values())

    await rig.cloud.until(lambda: heard('Readiness probe failed: service unhealthy (responded with "NOT_SERVING")'))
    assert not is_ready(rig.cloud, "web")
    served.status = 1
    await rig.cloud.until(lambda: is_ready(rig.cloud, "web"))


async def test_hooks_over_http_and_hooks_that_sleep(rig: Rig) -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(f"{request.path} {request.headers.get('x-from', '')}")
        return Response(200, {}, b"")

    async with HttpServer(answer, clock=RealClock()) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0")
        port = int(listener.address.rpartition(":")[2])
        call = {"port": "hook", "path": "/started", "httpHeaders": [{"name": "X-From", "value": "web"}]}
        hooks = {"postStart": {"httpGet": call}, "preStop": {"sleep": {"seconds": 1}}}
        main = {"name": "main", "image": IMAGE, "lifecycle": hooks, "ports": [{"name": "hook", "containerPort": port}]}
        await rig.cloud.apply("pod", {"metadata": {"name": "web"}, "spec": {"containers": [main], "hostNetwork": True}})
        await rig.cloud.until(lambda: is_ready(rig.cloud, "web"))
        assert asked == ["/started web"]
        began = time.monotonic()
        await rig.cloud.delete("web", grace_s=10)
        with anyio.fail_after(9):  # before the grace period is over
            await rig.cloud.until(lambda: rig.cloud.deleted == ["uid-of-pod-web"])
        assert time.monotonic() - began >= 1.0
