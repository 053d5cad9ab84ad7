"""Edged on a real containerd: what a user sees of pods, and that nothing stays behind."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import anyio
import pytest
from edged_site import FOREVER, UIDS, container, is_ready, none_runs, output, pod, rig_on, state

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.httpcheck import HttpTarget, http_status
from edgesite.edge.edged.runtime import ContainerState, SandboxState
from edgesite.net.real import RealNet
from edgesite.testing.containerd import BUSYBOX, Containerd
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.runtime import running
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_pod_runs_with_an_address_and_is_deleted(rig: Rig, daemon: Containerd) -> None:
    await rig.cloud.apply("pod", pod("web", container(), container("second")))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "web"))
    status = rig.cloud.status("web")
    assert status["phase"] == "Running"
    assert status["podIP"].startswith(str(daemon.subnet.network_address).rsplit(".", 1)[0])
    assert status["containerStatuses"][0]["containerID"].startswith("containerd://")
    assert status["containerStatuses"][0]["image"] == BUSYBOX


async def test_environment_volumes_hosts_and_limits_reach_the_program(rig: Rig) -> None:
    script = (
        "echo $GREETING-$COLOUR-$NAME-$IP-$LIMIT; cat /conf/a.txt; cat /secret/key; cat /info/labels; echo; "
        "ls -l /conf | grep -c data; cat /etc/hosts | grep example; hostname; id -u; id -G; touch /x 2>&1; echo kept > /work/f; "
        "cat /sub/file; echo last words > /dev/termination-log"
    )
    main = container(
        command=["/bin/sh", "-c", f"{script}; {FOREVER[2]}"],
        env=[
            {"name": "GREETING", "value": "hello"},
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "colour"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
        securityContext={"runAsUser": 1000, "runAsGroup": 1000, "readOnlyRootFilesystem": True},
        volumeMounts=[
            {"name": "conf", "mountPath": "/conf"},
            {"name": "secret", "mountPath": "/secret"},
            {"name": "info", "mountPath": "/info"},
            {"name": "work", "mountPath": "/work"},
            {"name": "conf", "mountPath": "/sub/file", "subPath": "a.txt"},
        ],
    )
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "secret", "secret": {"secretName": "hidden"}},
        {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    await rig.cloud.apply(
        "configmap", {"metadata": {"name": "conf"}, "data": {"colour": "red", "a.txt": "from-file\n"}}
    )
    await rig.cloud.apply("secret", {"metadata": {"name": "hidden"}, "data": {"key": "c2VjcmV0Cg=="}})
    aliases = [{"ip": "10.9.8.7", "hostnames": ["example.test"]}]
    context = {"fsGroup": 2000, "supplementalGroups": [3000]}
    spec = pod("full", main, volumes=volumes, hostAliases=aliases, hostname="given", securityContext=context)
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "full"))
    ip = rig.cloud.status("full")["podIP"]

    async def complete() -> bool:
        return (await output(rig, "full")).count("from-file") == 2

    await until(complete)
    lines = (await output(rig, "full")).splitlines()
    assert lines[0] == f"hello-red-full-{ip}-64"
    assert lines[1:4] == ["from-file", "secret", 'app="full"']
    assert "10.9.8.7\texample.test" in lines
    assert "given" in lines
    assert "1000" in lines
    assert any({"2000", "3000"} <= set(line.split()) for line in lines)
    assert any("Read-only file system" in line for line in lines)
    assert rig.cloud.status("full")["qosClass"] == "Guaranteed"


async def test_a_finished_job_keeps_its_log_and_message(rig: Rig) -> None:
    script = "echo some output; echo last words > /dev/termination-log; exit 3"
    await rig.cloud.apply("pod", pod("job", container(command=["/bin/sh", "-c", script]), restartPolicy="Never"))
    await rig.cloud.until(lambda: rig.cloud.status("job").get("phase") == "Failed")
    ended = state(rig.cloud, "job")["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "last words\n")
    assert await output(rig, "job") == "some output\n"


async def test_a_container_over_its_memory_limit_is_told_so(rig: Rig) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    main = container(command=["/bin/sh", "-c", script], resources={"limits": {"memory": "16Mi"}})
    await rig.cloud.apply("pod", pod("hungry", main, restartPolicy="Never"))
    await rig.cloud.until(lambda: rig.cloud.status("hungry").get("phase") == "Failed")
    assert state(rig.cloud, "hungry")["terminated"]["reason"] in ("OOMKilled", "Error")


async def test_init_containers_hand_over_through_a_volume(rig: Rig) -> None:
    mounts = [{"name": "work", "mountPath": "/work"}]
    init = container("setup", ["/bin/sh", "-c", "echo made > /work/file"], volumeMounts=mounts)
    main = container(command=["/bin/sh", "-c", f"cat /work/file; {FOREVER[2]}"], volumeMounts=mounts)
    volumes = [{"name": "work", "emptyDir": {}}]
    await rig.cloud.apply("pod", pod("chain", main, initContainers=[init], volumes=volumes))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "chain"))

    async def printed() -> bool:
        return await output(rig, "chain") == "made\n"

    await until(printed)


async def test_a_program_that_is_missing_shows_run_container_error(rig: Rig) -> None:
    await rig.cloud.apply("pod", pod("broken", container(command=["/no/such/program"])))
    await rig.cloud.until(lambda: "RunContainerError" in str(state(rig.cloud, "broken")))


async def test_probes_decide_readiness_and_restarts(rig: Rig) -> None:
    well = {
        "exec": {"command": ["/bin/test", "!", "-e", "/tell/sick"]},
        "periodSeconds": 1,
        "timeoutSeconds": 30,
        "failureThreshold": 1,
    }
    main = container(
        command=["/bin/sh", "-c", "sleep 0.5; touch /tmp/ready; sleep 1000"],
        readinessProbe={"exec": {"command": ["/bin/cat", "/tmp/ready"]}, "periodSeconds": 1, "timeoutSeconds": 30},
        livenessProbe=well,
        volumeMounts=[{"name": "tell", "mountPath": "/tell"}],
    )
    volumes = [{"name": "tell", "emptyDir": {}}]
    await rig.cloud.apply("pod", pod("probed", main, volumes=volumes, terminationGracePeriodSeconds=1))
    await rig.cloud.until(lambda: "running" in state(rig.cloud, "probed"))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "probed"))
    uid = rig.cloud.pod("probed")["metadata"]["uid"]
    assert any(
        "running" in one["containerStatuses"][0]["state"] and not one["containerStatuses"][0]["ready"]
        for one in rig.cloud.history[uid]
        if one.get("containerStatuses")
    )
    assert "Unhealthy" in rig.cloud.reasons()
    [tell] = [one async for one in anyio.Path(rig.data_dir, "edged", "pods", uid, "volumes").glob("*empty-dir/tell")]
    await (tell / "sick").touch()
    await rig.cloud.until(lambda: rig.cloud.status("probed")["containerStatuses"][0]["restartCount"] >= 1)
    await (tell / "sick").unlink()
    await rig.cloud.until(lambda: is_ready(rig.cloud, "probed"))


async def test_host_ports_and_the_hosts_network(rig: Rig) -> None:
    serve = ["/bin/sh", "-c", "echo hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    probe = {"httpGet": {"path": "/index.html", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 30}
    ports = [{"name": "http", "containerPort": 8080, "hostPort": 18080}]
    main = container(command=serve, ports=ports, readinessProbe=probe)
    await rig.cloud.apply("pod", pod("served", main, terminationGracePeriodSeconds=1))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "served"))
    status, body = await http_status(RealNet(), HttpTarget("127.0.0.1:18080", "/index.html", (), False))
    assert (status, body) == (200, b"hi\n")
    await rig.cloud.apply("pod", pod("second", container(ports=ports)))
    await rig.cloud.until(lambda: rig.cloud.status("second").get("reason") == "NodePorts")
    await rig.cloud.apply("pod", pod("onhost", container(), hostNetwork=True))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "onhost"))
    assert rig.cloud.status("onhost")["podIP"] == rig.cloud.status("onhost")["hostIP"]


async def test_containers_go_on_over_a_restart_of_edgesite(daemon: Containerd, tmp_path: Path) -> None:
    async with rig_on(daemon, tmp_path) as first:
        cloud = first.cloud
        await cloud.apply("pod", pod("kept", container()))
        await cloud.until(lambda: is_ready(cloud, "kept"))
        before = cloud.status("kept")["containerStatuses"][0]
        sent = cloud.reports
    async with rig_on(daemon, tmp_path, cloud) as second:
        await cloud.apply("pod", pod("new", container()))
        await cloud.until(lambda: is_ready(cloud, "new"))
        assert cloud.status("kept")["containerStatuses"][0] == before
        assert cloud.reports > sent
        for name in ("kept", "new"):
            await cloud.delete(name, grace_s=1)
        await second.cloud.until(lambda: not any(key[0] == "pod" for key in cloud.objects))


async def test_pods_survive_a_restart_of_containerd(rig: Rig, daemon: Containerd) -> None:
    await rig.cloud.apply("pod", pod("steady", container()))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "steady"))
    before = rig.cloud.status("steady")["containerStatuses"][0]["containerID"]
    await anyio.to_thread.run_sync(daemon.restart)
    await rig.cloud.apply("pod", pod("later", container()))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "later"))
    assert rig.cloud.status("steady")["containerStatuses"][0]["containerID"] == before


async def test_a_sandbox_that_was_lost_is_made_anew(rig: Rig, daemon: Containerd) -> None:
    await rig.cloud.apply("pod", pod("lost", container()))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "lost"))
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        (sandbox,) = await runtime.list_sandboxes()
        await runtime.stop_sandbox(sandbox.id)

    def is_back() -> bool:
        (main,) = rig.cloud.status("lost")["containerStatuses"]
        # Once, or twice where the end of the container was heard before that of its sandbox.
        return main["restartCount"] >= 1 and "running" in main["state"]

    await rig.cloud.until(is_back)
    assert "SandboxChanged" in rig.cloud.reasons()


async def test_a_killed_container_is_restarted_at_once(rig: Rig, daemon: Containerd) -> None:
    await rig.cloud.apply("pod", pod("crash", container(command=["/bin/sh", "-c", "sleep 0.3; exit 1"])))
    await rig.cloud.until(lambda: "running" in state(rig.cloud, "crash"))
    await rig.cloud.until(lambda: rig.cloud.status("crash")["containerStatuses"][0]["restartCount"] == 1)
    assert rig.cloud.status("crash")["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    told = [one["containerStatuses"][0] for one in rig.cloud.history[rig.cloud.pod("crash")["metadata"]["uid"]]]
    assert not [one for one in told if one["restartCount"] == 0 and "CrashLoopBackOff" in str(one["state"])]


@pytest.mark.parametrize(("seed", "finish_s"), [(1, 5.0), (2, 0.0), (3, 0.0)])
async def test_a_pod_comes_up_over_any_row_of_crashes(
    daemon: Containerd, tmp_path: Path, seed: int, finish_s: float
) -> None:
    """Calls under way are finished, as in an orderly stop, or cut off, as by a kill."""
    chance = random.Random(seed)
    cloud = FakeCloud(NODE, uids=UIDS)
    init = container("setup", ["/bin/sh", "-c", "exit 0"])
    await cloud.apply("pod", pod("web", container(), container("second"), initContainers=[init]))
    for _ in range(5):
        with anyio.move_on_after(chance.uniform(0.02, 0.35)):
            async with rig_on(daemon, tmp_path, cloud, finish_s):
                await anyio.sleep_forever()
    async with rig_on(daemon, tmp_path, cloud, finish_s):
        await cloud.until(lambda: is_ready(cloud, "web"))
        async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
            ready = [one for one in await runtime.list_sandboxes() if one.state is SandboxState.READY]
            listed = await runtime.list_containers()
            names = sorted(one.name for one in listed if one.state is ContainerState.RUNNING)
            assert len(ready) == 1
            assert names == ["main", "second"]
        await cloud.delete("web", grace_s=1)
        await cloud.until(lambda: not any(key[0] == "pod" for key in cloud.objects))
        await until(functools.partial(none_runs, daemon))
