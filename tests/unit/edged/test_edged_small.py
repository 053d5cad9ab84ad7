"""Back-off, verdicts of probes, settings, the choice of a runtime."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from edgesite.context import Context, Section
from edgesite.edge.edged.backoff import Backoff
from edgesite.edge.edged.choice import RuntimeChoiceError, choose_runtime
from edgesite.edge.edged.httpcheck import http_target, port_number
from edgesite.edge.edged.messages import termination_message
from edgesite.edge.edged.probes import Verdict
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, Mount
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.bus import LocalBus
from edgesite.runtime.health import RoleHealth
from edgesite.runtime.services import LocalServices
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime

# Back-off


def test_each_failure_doubles_the_wait_up_to_the_most() -> None:
    backoff: Backoff[str] = Backoff()
    assert backoff.waits_until("a", 0, 0) is None
    waits = []
    now = 0.0
    for _ in range(7):
        backoff.next("a", now)
        until = backoff.waits_until("a", now, now)
        assert until is not None
        waits.append(until - now)
        now = until
        assert backoff.waits_until("a", now - waits[-1], now) is None
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_ten_quiet_minutes_forgive() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.next("a", 0)
    backoff.next("a", 0)
    assert backoff.waits_until("a", 601, 601) is None
    backoff.next("a", 601)
    assert backoff.delay_s("a") == 10
    backoff.forget_before(1300)
    assert backoff.delay_s("a") == 0


def test_a_clock_set_back_does_not_lengthen_the_wait() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.next("a", 1000)
    assert backoff.waits_until("a", 1000, 10) == 20


def test_restarts_of_before_are_restored_once() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.restore("a", 3, 0)
    backoff.restore("a", 9, 0)
    backoff.restore("b", 0, 0)
    assert (backoff.delay_s("a"), backoff.delay_s("b")) == (40, 0)


# Probes


def test_a_verdict_needs_as_many_equal_answers_as_the_threshold() -> None:
    verdict = Verdict(False, success_threshold=2, failure_threshold=3)
    reached = [verdict.take(answer) for answer in (True, False, True, True, False, False, True, False, False, False)]
    assert reached == [False, False, False, True, False, False, False, False, False, True]
    assert verdict.holds is False


def test_ports_by_number_digits_and_name() -> None:
    container = {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}
    assert [port_number(container, one) for one in (1, "2", "http")] == [1, 2, 8080]
    with pytest.raises(ValueError, match="couldn't find port"):
        port_number(container, "none")


def test_http_targets_go_to_the_pod_unless_told_otherwise() -> None:
    target = http_target({}, {"port": 80, "path": "x"}, "10.0.0.1")
    assert (target.address, target.path, target.secure) == ("10.0.0.1:80", "/x", False)
    target = http_target({}, {"port": 443, "host": "fd00::1", "scheme": "HTTPS"}, "10.0.0.1")
    assert (target.address, target.secure) == ("[fd00::1]:443", True)


# Termination messages


def an_end(tmp_path: Path, policy: str = "File", code: int = 1) -> ContainerStatus:
    annotations = {
        "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
        "io.kubernetes.container.terminationMessagePolicy": policy,
    }
    return ContainerStatus(
        id="c",
        name="main",
        attempt=0,
        state=ContainerState.EXITED,
        created_ns=1,
        started_ns=1,
        finished_ns=2,
        exit_code=code,
        image="",
        image_ref="",
        reason="",
        message="",
        labels={},
        annotations=annotations,
        mounts=(Mount("/dev/termination-log", str(tmp_path / "message")),),
        log_path=str(tmp_path / "log"),
    )


def test_the_message_is_the_end_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "message").write_text("x" * 5000 + "end")
    text = termination_message(an_end(tmp_path))
    assert (len(text), text[-3:]) == (4096, "end")


def test_what_a_container_puts_in_the_place_of_its_message_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    (tmp_path / "message").symlink_to(tmp_path / "secret")
    assert termination_message(an_end(tmp_path)) == ""
    (tmp_path / "message").unlink()
    os.mkfifo(tmp_path / "message")  # whoever opens it would wait for ever
    assert termination_message(an_end(tmp_path)) == ""
    (tmp_path / "message").unlink()
    (tmp_path / "message").mkdir()
    assert termination_message(an_end(tmp_path)) == ""


def test_the_log_serves_where_the_policy_says_so(tmp_path: Path) -> None:
    (tmp_path / "message").touch()
    (tmp_path / "log").write_text("".join(f"2026 stdout F line {number}\n" for number in range(100)))
    assert termination_message(an_end(tmp_path)) == ""
    assert termination_message(an_end(tmp_path, "FallbackToLogsOnError", code=0)) == ""
    lines = termination_message(an_end(tmp_path, "FallbackToLogsOnError")).splitlines()
    assert (len(lines), lines[-1]) == (80, "line 99")


def test_a_line_without_end_gets_none_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "message").touch()
    (tmp_path / "log").write_text(
        "2026 stdout P a lo\n2026 stdout P ng line\n2026 stdout F  ends\n2026 stdout P DONE\n"
    )
    assert termination_message(an_end(tmp_path, "FallbackToLogsOnError")) == "a long line ends\nDONE"


# Settings and the choice of a runtime


def test_settings_read_kubeedges_sections() -> None:
    section = Section(
        {
            "rootDirectory": "/var/lib/edged",
            "remoteRuntimeEndpoint": "unix:///x.sock",
            "nodeLabels": {"a": "b"},
            "tailoredKubeletConfig": {"cpuCFSQuotaPeriod": "50ms", "maxPods": 7, "clusterDNS": ["10.0.0.1"]},
        }
    )
    settings = EdgedSettings.of(section)
    assert settings.root == Path("/var/lib/edged")
    assert (settings.runtime_endpoint, settings.cpu_cfs_period_us, settings.max_pods) == ("unix:///x.sock", 50_000, 7)
    assert settings.cluster_dns == ("10.0.0.1",)
    assert EdgedSettings.of(Section({})).root is None


class Hooks:
    """Offers a CRI runtime on an engine, and a process runtime, and tells which was made last."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.made, self.config = engine, "", Section({})

    def admission(self, settings: Any) -> list[Any]:
        return []

    def resources(self) -> list[Any]:
        return []

    def loaded(self) -> dict[str, str]:
        return {}

    def runtime(self, name: str, config: Section) -> Callable[[Context], FakeRuntime] | None:
        if name not in ("cri", "process"):
            return None
        self.made, self.config = name, config
        return lambda ctx: FakeRuntime(self.engine)


@pytest.fixture
async def threads() -> AsyncGenerator[RealThreads]:
    made = RealThreads()
    yield made
    await made.close()


def a_context(hooks: Hooks, threads: RealThreads, path: Path) -> Context:
    import logging

    return Context(
        role="edge",
        module="edged",
        node_name="n1",
        config=Section({}),
        settings=Section({}),
        data_dir=path,
        clock=RealClock(),
        random=random.Random(1),
        net=RealNet(),
        threads=threads,
        disk=RealDisk(),
        bus=LocalBus(),
        services=LocalServices(),
        health=RoleHealth(),
        metrics=CollectorRegistry(),
        log=logging.getLogger("edgesite.test"),
        hooks=hooks,
        ready=lambda: None,
    )


@pytest.mark.anyio
async def test_auto_takes_cri_where_it_answers_and_stays_with_it(threads: RealThreads, tmp_path: Path) -> None:
    engine = FakeEngine(RealClock())
    hooks = Hooks(engine)
    ctx = a_context(hooks, threads, tmp_path)
    socket = tmp_path / "runtime.sock"
    settings = EdgedSettings(runtime_endpoint=f"unix://{socket}")
    await choose_runtime(ctx, settings, tmp_path)
    assert hooks.made == "process"
    socket.touch()
    engine.reachable = False
    await choose_runtime(ctx, settings, tmp_path)
    assert hooks.made == "process"
    engine.reachable = True
    await choose_runtime(ctx, settings, tmp_path)
    assert hooks.made == "cri"
    engine.reachable = False
    socket.unlink()
    await choose_runtime(ctx, settings, tmp_path)
    assert hooks.made == "cri"


@pytest.mark.anyio
async def test_a_node_of_a_go_edgecore_never_falls_back_to_processes(threads: RealThreads, tmp_path: Path) -> None:
    hooks = Hooks(FakeEngine(RealClock()))
    folder, pod = tmp_path / "edged", tmp_path / "edged" / "pods" / "uid-1"
    pod.mkdir(parents=True)
    settings = EdgedSettings(runtime_endpoint=f"unix://{tmp_path}/late.sock")
    await choose_runtime(a_context(hooks, threads, tmp_path), settings, folder)
    assert hooks.made == "cri"
    (tmp_path / "process").mkdir()  # they are our own process runtime's
    await choose_runtime(a_context(hooks, threads, tmp_path), settings, folder)
    assert hooks.made == "process"


@pytest.mark.anyio
async def test_another_socket_stands_in_for_dockershims(threads: RealThreads, tmp_path: Path) -> None:
    hooks = Hooks(FakeEngine(RealClock()))
    settings = EdgedSettings(runtime="cri", runtime_endpoint="unix:///var/run/dockershim.sock")
    await choose_runtime(a_context(hooks, threads, tmp_path), settings, tmp_path)
    assert hooks.config["remoteRuntimeEndpoint"] in (
        "unix:///run/cri-dockerd.sock",
        "unix:///run/containerd/containerd.sock",
    )


@pytest.mark.anyio
async def test_a_runtime_that_nobody_provides_is_an_error(threads: RealThreads, tmp_path: Path) -> None:
    ctx = a_context(Hooks(FakeEngine(RealClock())), threads, tmp_path)
    with pytest.raises(RuntimeChoiceError, match="'other'"):
        await choose_runtime(ctx, EdgedSettings(runtime="other"), tmp_path)
