"""A host that shuts down: pods end in order while logind waits, over a real D-Bus daemon."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.edged.shutdown import dbus, manager
from edgesite.edge.edged.shutdown.dbus import BusError, connect
from edgesite.net.real import RealClock
from edgesite.testing.edgedrig import NODE, Rig, edged_rig
from edgesite.testing.fakelogind import fake_logind
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime, Script

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"
SETTINGS: dict[str, Any] = {
    "tailoredKubeletConfig": {
        "shutdownGracePeriod": "3s",
        "shutdownGracePeriodCriticalPods": "1s",
        "nodeStatusUpdateFrequency": "200ms",
    }
}


def pod(name: str, container: str, priority: int = 0, grace_s: int = 30) -> dict[str, Any]:
    spec = {
        "containers": [{"name": container, "image": IMAGE}],
        "priority": priority,
        "terminationGracePeriodSeconds": grace_s,
    }
    return {"metadata": {"name": name}, "spec": spec}


def engine() -> FakeEngine:
    scripts = {"deaf": Script(stop_s=math.inf), "slow": Script(stop_s=0.3)}
    return FakeEngine(RealClock(), lambda config: scripts.get(config.name, Script()), images=[IMAGE])


def ready_condition(rig: Rig) -> dict[str, Any]:
    found = (rig.cloud.objects.get(("node", "", NODE)) or {}).get("status", {}).get("conditions") or ()
    return next((one for one in found if one["type"] == "Ready"), {})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of logind's own folder."""
    path = tmp_path / "logind.conf.d" / "edgesite.conf"
    monkeypatch.setattr(manager.NodeShutdown.__init__, "__kwdefaults__", {"config": path})
    return path


async def start(rig: Rig, *pods: dict[str, Any]) -> None:
    for one in pods:
        await rig.cloud.apply("pod", one)
    names = [one["metadata"]["name"] for one in pods]
    await rig.cloud.until(lambda: all(rig.cloud.status(name).get("phase") == "Running" for name in names))


async def test_pods_end_in_order_while_the_shutdown_waits(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = engine()
    async with fake_logind(tmp_path) as host:
        host.delay_s = 1.0  # less than what is wanted
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", host.address)
        async with edged_rig(lambda ctx: FakeRuntime(machine), tmp_path / "data", settings=SETTINGS) as rig:
            await start(rig, pod("web", "slow"), pod("deaf", "deaf"), pod("dns", "quick", 2_000_001_000))
            with anyio.fail_after(60):
                await host.held.wait()
            assert await anyio.Path(config).read_text() == "[Login]\nInhibitDelayMaxSec=3\n"
            assert host.asked == [("shutdown", "edgesite", "Pods are ended in order", "delay")]
            began = anyio.current_time()
            await host.prepare(True)
            await rig.cloud.until(lambda: ready_condition(rig).get("message") == "node is shutting down")
            await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Failed")
            assert rig.cloud.status("dns")["phase"] == "Running"
            await rig.cloud.apply("pod", pod("late", "quick"))
            await rig.cloud.until(lambda: rig.cloud.status("late").get("reason") == "NodeShutdown")
            with anyio.fail_after(60):
                await host.released.wait()
            assert anyio.current_time() - began < 10, "the deaf one has 30 s of its own"
            for name in ("web", "deaf", "dns"):
                status = rig.cloud.status(name)
                assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
                assert status["message"] == "Pod was terminated in response to imminent node shutdown."
                assert any(one["type"] == "DisruptionTarget" for one in status["conditions"])
                assert "terminated" in status["containerStatuses"][0]["state"]
            assert ready_condition(rig)["status"] == "False"


async def test_a_shutdown_that_is_called_off_makes_the_node_ready_again(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = engine()
    async with fake_logind(tmp_path) as host:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", host.address)
        async with edged_rig(lambda ctx: FakeRuntime(machine), tmp_path / "data", settings=SETTINGS) as rig:
            with anyio.fail_after(60):
                await host.held.wait()
            await host.prepare(True)
            await rig.cloud.until(lambda: ready_condition(rig).get("status") == "False")
            host.held = anyio.Event()
            await host.prepare(False)
            await rig.cloud.until(lambda: ready_condition(rig).get("status") == "True")
            with anyio.fail_after(60):
                await host.held.wait()
            await start(rig, pod("web", "quick"))


async def test_without_a_bus_edged_goes_on(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    async with edged_rig(lambda ctx: FakeRuntime(engine()), tmp_path / "data", settings=SETTINGS) as rig:
        await start(rig, pod("web", "quick"))
    assert any("cannot be ended in order" in one.message for one in caplog.records)


async def test_calls_are_answered_refused_and_kept_apart_from_signals(tmp_path: Path) -> None:
    async with fake_logind(tmp_path) as host, connect(host.address.removeprefix("unix:path=")) as bus:
        name = "org.freedesktop.DBus"
        with pytest.raises(BusError, match="UnknownMethod"):
            await bus.call(name, "/org/freedesktop/DBus", name, "Nothing")
        with pytest.raises(BusError, match="ServiceUnknown"):
            await bus.call("com.example.None", "/x", "com.example.None", "Nothing")
        answer = await bus.call(name, "/org/freedesktop/DBus", name, "NameHasOwner", "s", (name,))
        assert answer.body == (True,)


async def test_what_is_no_bus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbus, "CALL_S", 0.2)
    with pytest.raises(BusError):
        async with connect(str(tmp_path / "none")):
            pass
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(OSError):  # noqa: PT011 - no more is said than that it took too long
            async with connect(str(tmp_path / "silent")):
                pass


async def test_the_address_of_the_system_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert manager.system_address() == "/run/dbus/system_bus_socket"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=x;unix:path=/run/bus,guid=1")
    assert manager.system_address() == "/run/bus"
