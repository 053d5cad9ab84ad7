"""Edged on a real containerd: what pods written for kubelet rely on."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_site import FOREVER, UIDS, clean_rig, container, is_ready, output, pod, state

from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.pki import SERVER, RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.net.tls import server_context
from edgesite.testing.containerd import BUSYBOX, Containerd
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


def has_event(rig: Rig, reason: str, words: str = "") -> bool:
    return any(one["reason"] == reason and words in one["message"] for one in rig.cloud.events.values())


def node_condition(rig: Rig, kind: str) -> tuple[str, str]:
    node = rig.cloud.objects.get(("node", "", NODE)) or {}
    for one in (node.get("status") or {}).get("conditions") or ():
        if one["type"] == kind:
            return one["status"], one["message"]
    return "", ""


async def test_each_type_of_host_path_is_checked_made_and_mounted(rig: Rig, tmp_path: Path) -> None:
    root = tmp_path / "host"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "inside").write_text("from-host\n")
    (root / "file").write_text("a-file\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "sock"))
        wanted = {
            "Directory": root / "folder",
            "DirectoryOrCreate": root / "made" / "deep",
            "File": root / "file",
            "FileOrCreate": root / "made-file",
            "Socket": root / "sock",
            "CharDevice": Path("/dev/null"),
            "": root / "unchecked",
        }
        volumes, mounts = [], []
        for number, (kind, path) in enumerate(wanted.items()):
            volumes.append({"name": f"v{number}", "hostPath": {"path": str(path), **({"type": kind} if kind else {})}})
            mounts.append({"name": f"v{number}", "mountPath": f"/m{number}"})
        script = (
            "cat /m0/inside; [ -d /m1 ] && echo made > /m1/x; cat /m2; echo written > /m3; "
            "[ -S /m4 ] && echo socket; [ -c /m5 ] && echo device; [ -d /m6 ] && echo folder; " + FOREVER[2]
        )
        main = container(command=["/bin/sh", "-c", script], volumeMounts=mounts)
        await rig.cloud.apply("pod", pod("mounted", main, volumes=volumes))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "mounted"))

        async def printed() -> bool:
            return (await output(rig, "mounted")).split() == ["from-host", "a-file", "socket", "device", "folder"]

        await until(printed)
        assert (root / "made" / "deep" / "x").read_text() == "made\n"
        assert (root / "made-file").read_text() == "written\n"


@pytest.mark.parametrize(
    ("kind", "words"), [("BlockDevice", "a block device"), ("Socket", "a socket file"), ("Directory", "a directory")]
)
async def test_a_host_path_of_the_wrong_type_keeps_the_pod_waiting(
    rig: Rig, tmp_path: Path, kind: str, words: str
) -> None:
    (tmp_path / "plain").write_text("x")
    volume = {"name": "v", "hostPath": {"path": str(tmp_path / "plain"), "type": kind}}
    await rig.cloud.apply("pod", pod("waits", container(), volumes=[volume]))
    await rig.cloud.until(lambda: has_event(rig, "FailedMount", f"is not {words}"))
    assert state(rig.cloud, "waits") in ({}, {"waiting": {"reason": "ContainerCreating"}})


async def test_resolv_conf_token_and_host_names_inside_a_container(rig: Rig) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    names = {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}
    volume = {"name": "access", "projected": {"defaultMode": 0o400, "sources": [token, names]}}
    main = container(
        command=[
            "/bin/sh",
            "-c",
            f"cat /etc/resolv.conf; echo; cat /access/token; echo; stat -L -c %a /access/token; cat /access/namespace; echo; {FOREVER[2]}",
        ],
        volumeMounts=[{"name": "access", "mountPath": "/access", "readOnly": True}],
    )
    dns = {
        "nameservers": ["192.0.2.53"],
        "searches": ["one.test", "two.test"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    spec = pod("named", main, volumes=[volume], dnsPolicy="None", dnsConfig=dns, serviceAccountName="robot")
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "named"))

    async def complete() -> bool:
        return "default" in await output(rig, "named")

    await until(complete)
    lines = (await output(rig, "named")).split("\n")
    assert "nameserver 192.0.2.53" in lines
    assert "search one.test two.test" in lines
    assert "options ndots:2 edns0" in lines
    assert "token-of-default-robot" in lines
    assert "400" in lines


async def test_hooks_run_after_the_start_and_before_the_stop(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    script = "trap 'echo term >> /shared/order; exit 0' TERM; sleep 1000 & wait"
    hooks = {
        "postStart": {"exec": {"command": ["/bin/sh", "-c", "echo post >> /shared/order"]}},
        "preStop": {"exec": {"command": ["/bin/sh", "-c", "echo pre >> /shared/order"]}},
    }
    main = container(
        command=["/bin/sh", "-c", script], lifecycle=hooks, volumeMounts=[{"name": "shared", "mountPath": "/shared"}]
    )
    await rig.cloud.apply("pod", pod("hooked", main, volumes=[{"name": "shared", "hostPath": {"path": str(folder)}}]))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "hooked"))
    assert (folder / "order").read_text() == "post\n"
    await rig.cloud.delete("hooked", grace_s=5)
    await rig.cloud.until(lambda: ("pod", "default", "hooked") not in rig.cloud.objects)
    assert (folder / "order").read_text() == "post\npre\nterm\n"


async def test_a_failing_post_start_hook_restarts_the_container(rig: Rig) -> None:
    hooks = {"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo broken; exit 4"]}}}
    await rig.cloud.apply("pod", pod("unhooked", container(lifecycle=hooks), terminationGracePeriodSeconds=1))
    await rig.cloud.until(
        lambda: rig.cloud.status("unhooked").get("containerStatuses", [{}])[0].get("restartCount") == 1
    )
    assert has_event(rig, "FailedPostStartHook", "broken")


async def test_tcp_and_https_probes(rig: Rig, daemon: Containerd) -> None:
    def answer(request: Request) -> Response:
        return Response(204 if request.path == "/well" else 500, {}, b"")

    pki = RealPki(RealClock())
    authority = await pki.make_ca("probes")
    pair = await pki.issue(authority, "probed", dns_names=["elsewhere.test"], ips=[], usages=SERVER)
    async with HttpServer(answer, clock=RealClock()) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0", tls=server_context(pair.certificate, pair.key))
        port = int(listener.address.rpartition(":")[2])
        secure = {"host": "127.0.0.1", "port": port, "scheme": "HTTPS"}
        serve = ["/bin/sh", "-c", "while :; do nc -l -p 7000 < /dev/null; done & " + FOREVER[2]]
        probes = [
            container(
                "tcp", serve, readinessProbe={"tcpSocket": {"port": 7000}, "periodSeconds": 1, "timeoutSeconds": 30}
            ),
            container("shut", readinessProbe={"tcpSocket": {"port": 7001}, "periodSeconds": 1, "timeoutSeconds": 30}),
            container(
                "https",
                readinessProbe={"httpGet": secure | {"path": "/well"}, "periodSeconds": 1, "timeoutSeconds": 30},
            ),
            container(
                "ill", readinessProbe={"httpGet": secure | {"path": "/ill"}, "periodSeconds": 1, "timeoutSeconds": 30}
            ),
        ]
        await rig.cloud.apply("pod", pod("probed", *probes))

        def verdicts() -> dict[str, bool]:
            return {one["name"]: one["ready"] for one in rig.cloud.status("probed").get("containerStatuses") or ()}

        await rig.cloud.until(lambda: verdicts() == {"tcp": True, "shut": False, "https": True, "ill": False})
        await rig.cloud.until(lambda: has_event(rig, "Unhealthy", "statuscode: 500"))
        assert has_event(rig, "Unhealthy", "onnect")


async def test_a_sidecar_serves_the_work_and_ends_after_it(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    serving = "trap 'echo sidecar >> /shared/order; exit 0' TERM; touch /shared/up; sleep 1000 & wait"
    ready = {"exec": {"command": ["/bin/cat", "/shared/up"]}, "periodSeconds": 1, "timeoutSeconds": 30}
    sidecar = container(
        "proxy", ["/bin/sh", "-c", serving], restartPolicy="Always", volumeMounts=mounts, startupProbe=ready
    )
    work = ["/bin/sh", "-c", "cat /shared/up && echo worked >> /shared/order; sleep 0.3"]
    main = container(command=work, volumeMounts=mounts)
    volumes = [{"name": "shared", "hostPath": {"path": str(folder)}}]
    spec = pod("helped", main, initContainers=[sidecar], volumes=volumes, restartPolicy="Never")
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: rig.cloud.status("helped").get("phase") == "Succeeded")

    def proxy() -> dict[str, dict[str, int]]:
        return rig.cloud.status("helped")["initContainerStatuses"][0]["state"]  # type: ignore[no-any-return]

    await rig.cloud.until(lambda: "terminated" in proxy())
    assert proxy()["terminated"]["exitCode"] == 0  # asked to stop, not killed
    assert (folder / "order").read_text() == "worked\nsidecar\n"


async def test_a_changed_image_replaces_the_container(rig: Rig, daemon: Containerd) -> None:
    other = "docker.io/library/busybox:other"
    await anyio.to_thread.run_sync(daemon.load, {other: daemon.images[BUSYBOX]})
    spec = pod("changing", container(), container("second"), terminationGracePeriodSeconds=1)
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "changing"))
    before = rig.cloud.status("changing")
    spec["spec"]["containers"][0]["image"] = other
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: rig.cloud.status("changing")["containerStatuses"][0]["restartCount"] == 1)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "changing"))
    main, second = rig.cloud.status("changing")["containerStatuses"]
    assert main["lastState"]["terminated"]["exitCode"] == 0
    assert second == before["containerStatuses"][1]
    assert rig.cloud.status("changing")["podIP"] == before["podIP"]
    assert has_event(rig, "Killing", "definition changed")


async def test_a_hung_containerd_makes_the_node_not_ready_until_it_answers(daemon: Containerd, tmp_path: Path) -> None:
    settings = {"tailoredKubeletConfig": {"nodeStatusUpdateFrequency": "500ms"}}
    async with clean_rig(daemon, tmp_path, timeout_s=2.0, settings=settings) as rig:
        await rig.cloud.apply("pod", pod("before", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "before"))
        kept = rig.cloud.status("before")["containerStatuses"]
        daemon.hang()
        try:
            await rig.cloud.apply("pod", pod("during", container()))
            await rig.cloud.until(lambda: node_condition(rig, "Ready")[0] == "False")
            assert "container runtime " in node_condition(rig, "Ready")[1]
            assert rig.cloud.status("before")["containerStatuses"] == kept
        finally:
            daemon.resume()
        await rig.cloud.until(lambda: is_ready(rig.cloud, "during"))
        await rig.cloud.until(lambda: node_condition(rig, "Ready")[0] == "True")
        assert rig.cloud.status("before")["containerStatuses"] == kept


async def test_a_stubborn_pod_is_gone_soon_after_its_grace_period(rig: Rig) -> None:
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]
    hooks = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 0.4"]}}}
    await rig.cloud.apply("pod", pod("stubborn", container(command=stubborn, lifecycle=hooks)))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "stubborn"))

    async def up() -> bool:
        return await output(rig, "stubborn") == "up\n"

    await until(up)
    uid = rig.cloud.pod("stubborn")["metadata"]["uid"]
    began = time.monotonic()
    await rig.cloud.delete("stubborn", grace_s=3)
    await rig.cloud.until(lambda: uid in rig.cloud.deleted)
    took = time.monotonic() - began
    # The hook's time counts; what follows the kill (network, mounts, removal) is the runtime's own time, measured apart in benchmarks.
    assert 2.9 <= took < 3.5


async def test_an_ephemeral_container_sees_the_processes_of_its_target(rig: Rig) -> None:
    spec = pod("looked-at", container(command=["/bin/sh", "-c", "sleep 7777 & wait"]))
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "looked-at"))
    before = rig.cloud.status("looked-at")["containerStatuses"]
    debugger = container("debugger", ["/bin/sh", "-c", "ps | grep 'sleep 7777'; exit 3"], targetContainerName="main")
    spec["spec"]["ephemeralContainers"] = [debugger]
    await rig.cloud.apply("pod", spec)

    def shown() -> dict[str, Any]:
        return (rig.cloud.status("looked-at").get("ephemeralContainerStatuses") or [{}])[0]  # type: ignore[no-any-return]

    await rig.cloud.until(lambda: "terminated" in (shown().get("state") or {}))
    assert "sleep 7777" in await output(rig, "looked-at", "debugger")
    assert (shown()["state"]["terminated"]["exitCode"], shown()["restartCount"], shown()["ready"]) == (3, 0, False)
    assert rig.cloud.status("looked-at")["containerStatuses"] == before
    assert is_ready(rig.cloud, "looked-at")
    await rig.cloud.until(
        lambda: any(
            one["involvedObject"].get("fieldPath") == "spec.ephemeralContainers{debugger}"
            for one in rig.cloud.events.values()
        )
    )


async def test_a_long_log_is_rotated_and_goes_on(daemon: Containerd, tmp_path: Path) -> None:
    settings = {"tailoredKubeletConfig": {"containerLogMaxSize": "4Ki", "containerLogMaxFiles": 3}}
    async with clean_rig(daemon, tmp_path, settings=settings) as rig:
        talk = "i=0; while :; do i=$((i+1)); echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxx; sleep 0.01; done"
        await rig.cloud.apply("pod", pod("talks", container(command=["/bin/sh", "-c", talk])))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "talks"))
        folder = anyio.Path(tmp_path, "edged", "logs", f"default_talks_{UIDS}uid-of-pod-talks", "main")

        async def rotated() -> bool:
            names = [one.name async for one in folder.glob("0.log*")]
            return (
                len(names) >= 2 and await (folder / "0.log").exists() and (await (folder / "0.log").stat()).st_size > 0
            )

        await until(rotated)
        (moved,) = [one async for one in folder.glob("0.log.*")]
        before = (await moved.read_text()).split("line-")[-1].split("-")[0]
        after = (await (folder / "0.log").read_text()).split("line-")[1].split("-")[0]
        assert int(after) == int(before) + 1  # not a line is lost between the two


async def test_security_contexts_reach_the_kernel(rig: Rig) -> None:
    look = (
        "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; id -G; stat -c '%a %g' /work; "
        "touch /work/file; stat -c 'file %g' /work/file; stat -L -c 'secret %a %g' /secret/key; "
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /proc/acpi 2>&1 | wc -l; echo done; " + FOREVER[2]
    )
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "secret", "mountPath": "/secret"}]
    own = {
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    main = container(command=["/bin/sh", "-c", look], securityContext=own, volumeMounts=mounts)
    sysctls = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "secret", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
    ]
    await rig.cloud.apply("secret", {"metadata": {"name": "hidden"}, "data": {"key": "eA=="}})
    context = {"fsGroup": 2000, "sysctls": sysctls}
    await rig.cloud.apply("pod", pod("confined", main, volumes=volumes, securityContext=context))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "confined"))

    async def complete() -> bool:
        return "done" in await output(rig, "confined")

    await until(complete)
    lines = [line.split() for line in (await output(rig, "confined")).splitlines()]
    assert ["CapEff:", "0000000000000000"] in lines
    assert ["NoNewPrivs:", "1"] in lines
    assert ["Seccomp:", "2"] in lines
    assert any("2000" in line for line in lines)
    assert ["2777", "2000"] in lines
    assert ["file", "2000"] in lines
    assert ["secret", "440", "2000"] in lines
    assert ["80"] in lines
    await rig.cloud.apply(
        "pod", pod("greedy", container(), securityContext={"sysctls": [{"name": "vm.x", "value": "1"}]})
    )
    await rig.cloud.until(lambda: rig.cloud.status("greedy").get("reason") == "SysctlForbidden")


async def test_memory_of_a_running_container_is_resized(rig: Rig) -> None:
    look = "while :; do cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; sleep 0.1; done"
    main = container(command=["/bin/sh", "-c", look], resources={"limits": {"memory": "64Mi"}})
    spec = pod("grows", main)
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "grows"))

    async def sees_both() -> bool:
        lines = (await output(rig, "grows")).splitlines()
        return {str(64 << 20), str(96 << 20)} <= set(lines)

    main["resources"] = {"limits": {"memory": "96Mi"}}
    await rig.cloud.until(lambda: "resources" in rig.cloud.status("grows")["containerStatuses"][0])
    await rig.cloud.apply("pod", spec)
    await until(sees_both)
    assert rig.cloud.status("grows")["containerStatuses"][0]["restartCount"] == 0
