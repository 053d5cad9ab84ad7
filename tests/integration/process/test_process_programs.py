# ruff: noqa: ASYNC240 - tests may look at small local files directly
"""What a program finds when it runs as a process of the host, and what becomes of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import anyio
import pytest
from process_site import OpenProcess, Site, make_site, site_of

from edgesite.edge.edged.runtime import (
    Capabilities,
    ContainerEventType,
    ContainerSecurity,
    ContainerState,
    LinuxResources,
    Mount,
    RuntimeFault,
    RuntimeUnavailable,
    SandboxState,
)
from edgesite.testing.runtime import ended
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    place = tmp_path / "volume"
    place.mkdir()
    (place / "key").write_text("value\n")
    return place


async def test_volumes_are_where_the_pod_wants_them_and_the_host_sees_nothing(site: Site, volume: Path) -> None:
    mounts = (
        Mount("/edgesite-test-top", str(volume)),
        Mount("/etc/edgesite-test/deep", str(volume), readonly=True),
        Mount("/dev/termination-log", str(volume / "key")),
    )
    script = (
        "cat /edgesite-test-top/key /etc/edgesite-test/deep/key; echo new > /edgesite-test-top/made;"
        "echo no > /etc/edgesite-test/deep/made; test -s /etc/passwd && echo last > /dev/termination-log"
    )
    status, output = await site.finish(script, mounts=mounts)
    assert status.exit_code == 0
    assert output.splitlines()[:2] == ["value", "value"]
    assert "Read-only file system" in output
    assert (volume / "made").read_text() == "new\n"
    assert (volume / "key").read_text() == "last\n"
    assert not Path("/edgesite-test-top").exists()
    assert not Path("/etc/edgesite-test").exists()
    assert str(volume) not in Path("/proc/self/mounts").read_text()


async def test_a_volume_inside_a_volume(site: Site, volume: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("inner\n")
    mounts = (Mount("/edgesite-a/b/c", str(other)), Mount("/edgesite-a", str(volume)))
    status, output = await site.finish("cat /edgesite-a/key /edgesite-a/b/c/x", mounts=mounts)
    assert (status.exit_code, output) == (0, "value\ninner")


async def test_commands_inside_see_the_same(site: Site, volume: Path) -> None:
    container_id = await site.begin(
        "sleep 100", mounts=(Mount("/edgesite-top", str(volume)),), envs=(("GREETING", "hello"),)
    )
    script = 'cat /edgesite-top/key; echo "$GREETING $HOSTNAME $(hostname)"'
    result = await site.runtime.exec_sync(container_id, ("sh", "-c", script), 10.0)
    assert result.stdout == b"value\nhello contract contract\n"
    large = await site.runtime.exec_sync(container_id, ("head", "-c", "300000", "/dev/zero"), 10.0)
    assert large.stdout == bytes(300000)


async def test_the_environment_is_the_pods_alone(site: Site) -> None:
    os.environ["EDGESITE_TEST_SECRET"] = "x"
    _, output = await site.finish("env", envs=(("A", "1"), ("PATH", "/bin:/usr/bin")))
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert {"A", "PATH", "HOME", "HOSTNAME"} <= names
    assert "EDGESITE_TEST_SECRET" not in names
    assert "PATH=/bin:/usr/bin" in output


async def test_a_program_runs_as_the_user_asked_for_or_not_at_all(site: Site) -> None:
    security = ContainerSecurity(user=12345, group=23456, groups=(34567,))
    if os.getuid() != 0:
        with pytest.raises(RuntimeFault, match="cannot run as user 12345"):
            await site.begin("true", security=security)
        return
    script = "id -u; id -g; id -G; echo again > /dev/stdout; touch made && stat -c %u made"
    status, output = await site.finish(script, security=security)
    assert (status.exit_code, output.splitlines()) == (0, ["12345", "23456", "23456 34567", "again", "12345"])


async def test_capabilities_are_dropped(site: Site) -> None:
    security = ContainerSecurity(capabilities=Capabilities(drop=("ALL",), add=("CHOWN",)), no_new_privileges=True)
    _, output = await site.finish("grep -E 'CapEff|NoNewPrivs' /proc/self/status", security=security)
    effective = int(re.search(r"CapEff:\s+(\w+)", output)[1], 16)  # type: ignore[index]
    assert effective == (1 if os.getuid() == 0 else effective & 1 << 2)
    assert re.search(r"NoNewPrivs:\s+1", output)


async def test_memory_is_limited(site: Site) -> None:
    limits = LinuxResources(memory_bytes=24 << 20)
    status, _ = await site.finish("a=x; while :; do a=$a$a; done", resources=limits)
    assert status.exit_code != 0
    (record,) = (one for one in site.runtime._containers.values() if one.id == status.id)
    assert (status.reason == "OOMKilled") is (record.cgroup is not None)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"command": ("edgesite-no-such-program",)}, 'exec: "edgesite-no-such-program": No such file or directory'),
        ({"command": ("/etc/passwd",)}, 'exec: "/etc/passwd": Permission denied'),
        ({"working_dir": "/no/such"}, "cannot use working directory /no/such: No such file or directory"),
        ({"mounts": (Mount("/etc/passwd/x", "/tmp"),)}, "is no directory|Not a directory"),
        ({"mounts": (Mount("/etc/passwd", "/tmp"),)}, "cannot mount a directory over /etc/passwd"),
        ({"mounts": (Mount("/x", "/no/such/source"),)}, "No such file or directory: /no/such/source"),
        ({"command": ()}, "no command specified"),
    ],
)
async def test_what_cannot_start_says_why(site: Site, more: dict[str, object], why: str) -> None:
    with pytest.raises(RuntimeFault, match=why):
        await site.begin("true", **more)


async def test_nothing_outlives_a_container(site: Site, tmp_path: Path) -> None:
    mark = f"edgesite-stray-{os.getpid()}-{time.time_ns()}"
    script = f"setsid setsid sh -c 'sleep 1000; : {mark}' & sh -c 'sleep 1000; : {mark}' & sleep 0.1; exit 4"
    status, _ = await site.finish(script)
    assert status.exit_code == 4

    async def gone() -> bool:
        return mark not in "".join(_command_lines())

    await until(gone)


async def test_strays_of_a_killed_container_go_too(site: Site) -> None:
    container_id = await site.begin("setsid sleep 98765 & echo ready; wait")
    status = await site.runtime.container_status(container_id)
    await until(lambda: _has(status.log_path, "ready"))
    await site.runtime.stop_container(container_id, 0.0)

    async def gone() -> bool:
        return not any("sleep\x0098765" in one for one in _command_lines())

    await until(gone)


async def test_a_stray_that_prints_for_ever_stops_nobody(site: Site) -> None:
    status, _ = await site.finish("setsid yes & sleep 0.1; exit 6")
    assert status.exit_code == 6
    with anyio.fail_after(60):
        status, output = await site.finish("echo fine")
    assert output == "fine"


async def test_a_program_ends_while_edgesite_is_away(open_process: OpenProcess, tmp_path: Path) -> None:
    async with open_process() as first:
        made = await make_site(first, tmp_path)
        container_id = await made.begin("echo before; until test -e go; do sleep 0.01; done; echo after; exit 9")
        status = await first.container_status(container_id)
        await until(lambda: _has(status.log_path, "before"))
        work = tmp_path / "process" / "containers" / container_id / "work"
    # No wait for edgesite: the supervisor alone must see it.
    (work / "go").touch()
    await until(lambda: _has(status.log_path, "after"))
    async with open_process() as second:
        final = await ended(second, container_id)
        assert (final.exit_code, final.reason, final.started_ns) == (9, "Error", status.started_ns)
        assert final.finished_ns > status.started_ns
        await second.stop_sandbox(made.sandbox_id)
        await second.remove_sandbox(made.sandbox_id)


async def test_programs_outlive_their_supervisor(site: Site) -> None:
    going = await site.begin("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done")
    before = await site.runtime.container_status(going)
    await until(lambda: _has(before.log_path, "line 3"))
    hello = await site.runtime._link.ask("hello")
    os.kill(hello["pid"], signal.SIGKILL)

    async def served_again() -> bool:
        try:
            return bool((await site.runtime._link.ask("hello"))["pid"] != hello["pid"])
        except RuntimeUnavailable:
            return False

    await until(served_again)
    size = len(await _read(before.log_path))
    await until(lambda: _longer(before.log_path, size))
    status = await site.runtime.container_status(going)
    assert (status.state, status.started_ns) == (ContainerState.RUNNING, before.started_ns)
    lines = [int(line.rsplit(" ", 1)[1]) for line in (await _read(before.log_path)).splitlines()]
    assert lines == list(range(len(lines))), "nothing that was printed meanwhile is lost"
    result = await site.runtime.exec_sync(going, ("echo", "inside"), 5.0)
    assert result.stdout == b"inside\n"
    await site.runtime.stop_container(going, 5.0)
    status = await site.runtime.container_status(going)
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 255, "Unknown")


async def test_a_reboot_ends_everything(open_process: OpenProcess, tmp_path: Path) -> None:
    async with open_process() as first:
        made = await make_site(first, tmp_path)
        container_id = await made.begin("sleep 1000")
        await first.stop_container(container_id, 0.0)
        pid = (await first._link.ask("hello"))["pid"]
    await until(lambda: _gone(pid))
    root = tmp_path / "process"
    for path in (*root.glob("sandboxes/*.json"), *root.glob("containers/*/state.json")):
        text = re.sub(r'"boot": ?"[^"]*"', '"boot":"another"', path.read_text())
        path.write_text(re.sub(r'"finished_ns": ?\d+', '"finished_ns":0', text))
    async with open_process() as second:
        assert (await second.sandbox_status(made.sandbox_id)).state is SandboxState.NOT_READY
        status = await second.container_status(container_id)
        assert (status.state, status.exit_code) == (ContainerState.EXITED, 255)
        await second.remove_sandbox(made.sandbox_id)
        assert list((root / "containers").iterdir()) == []


async def test_the_supervisor_leaves_when_nobody_needs_it(open_process: OpenProcess, tmp_path: Path) -> None:
    async with open_process() as runtime:
        pid = (await runtime._link.ask("hello"))["pid"]
        assert not await _gone(pid)
    await until(lambda: _gone(pid))


async def test_programs_end_when_their_directory_is_removed(open_process: OpenProcess, tmp_path: Path) -> None:
    async with open_process() as runtime:
        made = await make_site(runtime, tmp_path)
        await made.begin("sleep 97531")
        pid = (await runtime._link.ask("hello"))["pid"]
        shutil.rmtree(tmp_path / "process")
    # It looks whenever something wakes it: here, that edgesite has left.
    await until(lambda: _gone(pid))
    assert not any("sleep\x0097531" in one for one in _command_lines())


async def test_a_moved_log_begins_anew(site: Site) -> None:
    container_id = await site.begin("echo one; until test -e go; do sleep 0.01; done; echo two; sleep 100")
    status = await site.runtime.container_status(container_id)
    log = Path(status.log_path)
    await until(lambda: _has(status.log_path, "one"))
    log.rename(log.with_suffix(".old"))
    await site.runtime.reopen_log(container_id)
    (Path(await _work(site, container_id)) / "go").touch()
    await until(lambda: _has(status.log_path, "two"))
    assert "one" not in log.read_text()


async def test_use_is_measured(site: Site) -> None:
    container_id = await site.begin("while :; do :; done")

    async def used() -> bool:
        stats = await site.runtime.container_stats()
        return any(one.id == container_id and one.cpu_ns > 0 and one.memory_working_set_bytes > 0 for one in stats)

    await until(used)


async def test_limits_of_a_running_container_change(site: Site) -> None:
    container_id = await site.begin("sleep 100", resources=LinuxResources(cpu_shares=512))
    group = site.runtime._containers[container_id].cgroup
    if group is None:
        with pytest.raises(RuntimeFault, match="no control group"):
            await site.runtime.update_resources(container_id, LinuxResources(cpu_shares=256))
        return
    await site.runtime.update_resources(container_id, LinuxResources(cpu_shares=256))
    files = [Path(one) / name for one in group.directories for name in ("cpu.shares", "cpu.weight")]
    assert [one.read_text().strip() for one in files if one.exists()] == ["256" if group.version == 1 else "10"]


async def test_events_tell_of_starts_and_ends(site: Site) -> None:
    seen: list[ContainerEventType] = []
    async with anyio.create_task_group() as tasks:
        listening = anyio.Event()

        async def listen() -> None:
            listening.set()
            async for event in site.runtime.events():
                seen.append(event.type)

        tasks.start_soon(listen)
        await listening.wait()
        await anyio.wait_all_tasks_blocked()
        status, _ = await site.finish("true")
        await site.runtime.remove_container(status.id)

        async def told() -> bool:
            return ContainerEventType.DELETED in seen

        await until(told)
        tasks.cancel_scope.cancel()
    assert seen == [
        ContainerEventType.CREATED,
        ContainerEventType.STARTED,
        ContainerEventType.STOPPED,
        ContainerEventType.DELETED,
    ]


async def test_many_at_once(site: Site) -> None:
    codes: list[int] = []

    async def one(number: int) -> None:
        status, output = await site.finish(f"echo {number}; exit {number}")
        assert output == str(number)
        codes.append(status.exit_code)

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(one, number)
    assert sorted(codes) == list(range(30))


async def test_nothing_is_left_after_removal(open_process: OpenProcess, tmp_path: Path, volume: Path) -> None:
    async with open_process() as runtime, site_of(runtime, tmp_path) as made:
        container_id = await made.begin("sleep 1000", mounts=(Mount("/edgesite-top", str(volume)),))
        group = runtime._containers[container_id].cgroup
    assert list((tmp_path / "process" / "containers").iterdir()) == []
    assert list((tmp_path / "process" / "sandboxes").iterdir()) == []
    assert group is None or not any(Path(one).exists() for one in group.directories)
    assert (volume / "key").exists()


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:
            continue
    return found


async def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def _read(path: str) -> str:
    file = anyio.Path(path)
    return await file.read_text() if await file.exists() else ""


async def _has(path: str, text: str) -> bool:
    return text in await _read(path)


async def _longer(path: str, size: int) -> bool:
    return len(await _read(path)) > size


async def _work(site: Site, container_id: str) -> str:
    return (await site.runtime.exec_sync(container_id, ("pwd",), 5.0)).stdout.decode().strip()
