"""What is looked at in the machine: each function is one line of the table, and returns what it found.

Errors  Failed: it is not so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from conformance.machine.site import ADDRESS, CGROUPS, METASERVER, Site, host, pod
from conformance.programs import Failed, eventually

__all__ = ["AFTER", "CHECKS", "LAST"]

_MIB: Final = 1 << 20
_SLEEP: Final = ("sleep", "1000000")
_PROOF: Final = Path("/var/lib/conformance")


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def expect(found: object, wanted: object, what: str) -> None:
    """Raises Failed."""
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")


def machine(site: Site) -> str:
    """systemd is the first process, cgroups are v2 alone, systemd makes those of pods."""
    expect(host("stat", "-f", "-c", "%T", str(CGROUPS)).strip(), "cgroup2fs", "cgroups")
    expect(Path("/proc/1/comm").read_text().strip(), "systemd", "the first process")
    version = host("systemctl", "--version").splitlines()[0]
    node = site.kubectl.json("get", "node", "vm")["status"]["nodeInfo"]
    found = site.run(pod("first", *_SLEEP))
    folder = site.slice_of(found)
    scopes = [one.name for one in folder.glob("*.scope")]
    if not scopes or not all(one.startswith("cri-containerd-") for one in scopes):
        raise Failed(f"no scopes of containers in {folder}: {scopes}")
    unit = host("systemctl", "show", "-p", "ActiveState", "--value", folder.name).strip()
    expect(unit, "active", folder.name)
    site.delete("first")
    eventually(lambda: not folder.exists(), "the end of the pod's slice", 60)
    return f"{version}, kernel {node['kernelVersion']}, {node['containerRuntimeVersion']}"


def limits(site: Site) -> str:
    """Limits and requests of pods of all three classes stand in their slices and scopes."""
    both = {"cpu": "500m", "memory": "64Mi"}
    guaranteed = site.run(pod("guaranteed", *_SLEEP, resources={"limits": both, "requests": both}))
    some = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}}
    burstable = site.run(pod("burstable", *_SLEEP, resources=some))
    besteffort = site.run(pod("besteffort", *_SLEEP))
    folder = site.slice_of(guaranteed)
    expect(folder.parent.name, "kubepods.slice", "where the guaranteed pod is")
    expect(read(folder, "memory.max"), str(64 * _MIB), "memory.max of the guaranteed pod")
    expect(read(folder, "cpu.max"), "50000 100000", "cpu.max of the guaranteed pod")
    scopes = [one for one in folder.glob("*.scope") if read(one, "memory.max") != "max"]
    expect([read(one, "memory.max") for one in scopes], [str(64 * _MIB)], "memory.max of its container")
    expect([read(one, "cpu.max") for one in scopes], ["50000 100000"], "cpu.max of its container")
    folder = site.slice_of(burstable)
    expect(folder.parent.name, "kubepods-burstable.slice", "where the burstable pod is")
    expect(read(folder, "memory.max"), str(96 * _MIB), "memory.max of the burstable pod")
    expect(read(folder, "cpu.weight"), "10", "cpu.weight of the burstable pod")  # 256 shares
    folder = site.slice_of(besteffort)
    expect(folder.parent.name, "kubepods-besteffort.slice", "where the best-effort pod is")
    expect(read(folder, "cpu.weight"), "1", "cpu.weight of the best-effort pod")
    inside = site.kubectl("exec", "guaranteed", "--", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max")
    expect(inside.split(), [str(64 * _MIB), "50000", "100000"], "what the container sees")
    site.delete("guaranteed", "burstable", "besteffort")
    left = [one.name for one in CGROUPS.glob("kubepods.slice/**/kubepods*-pod*.slice")]
    eventually(lambda: not list(CGROUPS.glob("kubepods.slice/**/kubepods*-pod*.slice")), f"the end of {left}", 60)
    return "memory.max, cpu.max, cpu.weight; in the container, too"


def resize(site: Site) -> str:
    """CPU and memory of a running container change in place, without a restart."""
    both = {"cpu": "500m", "memory": "64Mi"}
    found = site.run(pod("resized", *_SLEEP, resources={"limits": both, "requests": both}))
    folder = site.slice_of(found)
    more = {"cpu": "800m", "memory": "96Mi"}
    change = {"name": "main", "resources": {"limits": more, "requests": more}}
    patch = f'{{"spec":{{"containers":[{_json(change)}]}}}}'
    site.kubectl("patch", "pod", "resized", "--subresource", "resize", "--patch", patch)

    def applied(one: Any) -> bool:
        status = one["status"]["containerStatuses"][0]
        return bool(status.get("resources", {}).get("limits") == more)

    site.until("get", "pod", "resized", what="the status tells of the new limits", check=applied)
    expect((read(folder, "memory.max"), read(folder, "cpu.max")), (str(96 * _MIB), "80000 100000"), "the pod's slice")
    scopes = [read(one, "memory.max") for one in folder.glob("*.scope")]
    if str(96 * _MIB) not in scopes:
        raise Failed(f"memory.max of the containers: {scopes}")
    expect(site.kubectl.json("get", "pod", "resized")["status"]["containerStatuses"][0]["restartCount"], 0, "restarts")
    site.delete("resized")
    return "64Mi → 96Mi, 500m → 800m, 0 restarts"


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def oom(site: Site) -> str:
    """A container that takes more memory than its limit ends as OOMKilled."""
    hog = "x=0123456789abcdef; while true; do x=$x$x; done"
    found = site.run(pod("hog", "sh", "-c", hog, resources={"limits": {"memory": "32Mi"}}), ("Failed",))
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    expect((ended["reason"], ended["exitCode"]), ("OOMKilled", 137), "how it ended")
    site.delete("hog")
    return "OOMKilled, 137"


def eviction(site: Site) -> str:
    """A pod that uses up the host's memory is evicted; the one within its request stays; the pressure is told of, and its end."""
    requests = {"requests": {"memory": "16Mi"}, "limits": {"memory": "32Mi"}}
    site.run(pod("modest", *_SLEEP, resources=requests))
    volume = {"name": "ram", "emptyDir": {"medium": "Memory"}}
    mount = {"volumeMounts": [{"name": "ram", "mountPath": "/ram"}]}
    fill = "i=0; while true; do head -c 33554432 /dev/zero > /ram/$i || sleep 1; i=$((i+1)); done"
    site.kubectl.apply(pod("greedy", "sh", "-c", fill, volumes=[volume], container=mount))

    def pressure(status: str) -> Callable[[Any], bool]:
        def check(node: Any) -> bool:
            rows = node["status"]["conditions"]
            return any(one["type"] == "MemoryPressure" and one["status"] == status for one in rows)

        return check

    site.until("get", "node", "vm", what="MemoryPressure", check=pressure("True"))
    found = site.wait("greedy", ("Failed",))
    expect(found["status"].get("reason"), "Evicted", "why it ended")
    site.until("get", "node", "vm", what="the end of MemoryPressure", check=pressure("False"))
    expect(site.kubectl.json("get", "pod", "modest")["status"]["phase"], "Running", "the modest pod")
    site.delete("modest", "greedy")
    return str(found["status"]["message"])[:90]


def hugepages(site: Site) -> str:
    """Huge pages are told of as a resource, limited in the pod's slice, and given as a volume."""
    allocatable = site.kubectl.json("get", "node", "vm")["status"]["allocatable"]
    expect(allocatable.get("hugepages-2Mi"), "32Mi", "allocatable")
    resources = {"limits": {"memory": "32Mi", "cpu": "100m", "hugepages-2Mi": "8Mi"}}
    volume = {"name": "huge", "emptyDir": {"medium": "HugePages"}}
    mount = {"volumeMounts": [{"name": "huge", "mountPath": "/huge"}]}
    found = site.run(pod("huge", *_SLEEP, resources=resources, volumes=[volume], container=mount))
    folder = site.slice_of(found)
    expect(read(folder, "hugetlb.2MB.max"), str(8 * _MIB), "hugetlb.2MB.max of the pod")
    mounts = site.kubectl("exec", "huge", "--", "grep", " /huge ", "/proc/mounts")
    if "hugetlbfs" not in mounts or "pagesize=2M" not in mounts:
        raise Failed(f"the volume is {mounts}")
    site.kubectl.apply(pod("toobig", *_SLEEP, resources={"limits": {"memory": "32Mi", "hugepages-2Mi": "64Mi"}}))
    site.until("get", "pod", "toobig", what="no place for too many", check=lambda one: not one["spec"].get("nodeName"))
    site.delete("huge", "toobig")
    return "8Mi of 32Mi"


def privileged(site: Site) -> str:
    """A privileged container may make a dummy link (upstream's PrivilegedPod), another one may not."""
    script = "ip link add dummy1 type dummy && ip link show dummy1 && ip link del dummy1"
    context = {"securityContext": {"privileged": True}}
    site.run(pod("privileged", "sh", "-c", script, container=context), ("Succeeded",))
    if "dummy1" not in site.logs("privileged"):
        raise Failed(site.logs("privileged"))
    site.run(pod("plain", "sh", "-c", script), ("Failed",))
    if "Operation not permitted" not in site.logs("plain"):
        raise Failed(site.logs("plain"))
    site.delete("privileged", "plain")
    return "ip link add dummy1 type dummy"


def metaserver(site: Site) -> str:
    """The API at the node's own address, on a dummy interface: kubectl of the host, kubectl as it stands in a pod on the bridge; gone at the end."""
    eventually(
        lambda: f" {METASERVER}/32" in host("ip", "-o", "address"), "the address, once there is a certificate", 120
    )
    link = host("ip", "-d", "-o", "address", "show", "dev", "edge-dummy0")
    if f"inet {METASERVER}/32" not in link or " dummy " not in host("ip", "-d", "link", "show", "edge-dummy0"):
        raise Failed(f"the interface is {link}")
    site.kubectl("create", "serviceaccount", "robot")
    site.kubectl("create", "rolebinding", "robot", "--clusterrole=view", "--serviceaccount=default:robot")
    token = site.kubectl("create", "token", "robot").strip()
    words = [str(site.kubectl_path), "--server", f"https://{METASERVER}:10550", "--token", token, "get", "configmaps"]
    told = eventually(
        lambda: host(words[0], "--certificate-authority", str(site.authority), *words[1:], "-o", "name"),
        "its answer",
        60,
    )
    expect(told.split(), ["configmap/kube-root-ca.crt"], "what kubectl of the host lists")
    refused = subprocess.run(
        [*words, "--insecure-skip-tls-verify", "--token", "x"], capture_output=True, text=True, check=False
    )
    if "Unauthorized" not in refused.stderr and "logged in" not in refused.stderr:
        raise Failed(f"a wrong token: {refused.stdout}{refused.stderr}")
    shown = ("/lib", "/lib64", "/usr", str(site.kubectl_path.parent))  # kubectl needs the C library
    volumes = [{"name": f"v{at}", "hostPath": {"path": one}} for at, one in enumerate(shown)]
    mounts = [{"name": f"v{at}", "mountPath": one, "readOnly": True} for at, one in enumerate(shown)]
    script = f"echo $KUBERNETES_SERVICE_HOST; ip -o -4 address show eth0; {site.kubectl_path} get configmaps -o name"
    spec: dict[str, Any] = {"serviceAccountName": "robot", "volumes": volumes, "container": {"volumeMounts": mounts}}
    site.run(pod("client", "sh", "-c", script, **spec), ("Succeeded",))
    lines = site.logs("client").split("\n")
    expect((lines[0], lines[-2]), (METASERVER, "configmap/kube-root-ca.crt"), "what the pod was told, and lists")
    if " inet 10." not in lines[1]:
        raise Failed(f"the pod is not on the bridge: {lines[1]}")
    site.delete("client")
    site.stop()
    left = [one for one in ("edge-dummy0", METASERVER) if one in host("ip", "address")]
    site.start()
    expect(left, [], "what the end has left")
    return f"edge-dummy0 {METASERVER}; {' '.join(lines[1].split()[1:4])}; nothing left"


def nfs(site: Site) -> str:
    """A volume of a real NFS server by the kernel's client: written, read by the next pod, unmounted; a restart of the server waited for."""
    export = _exported()
    volume = {"name": "share", "nfs": {"server": ADDRESS, "path": str(export)}}
    mount = {"volumeMounts": [{"name": "share", "mountPath": "/share"}]}
    tick = "i=0; while true; do i=$((i+1)); echo $i > /share/ticks; sleep 1; done"
    site.run(pod("writer", "sh", "-c", tick, volumes=[volume], container=mount))
    ticks = export / "ticks"
    eventually(lambda: ticks.exists() and ticks.read_text().strip(), "the first tick", 60)
    kind = host("findmnt", "-n", "-o", "FSTYPE,SOURCE", "-t", "nfs,nfs4")
    host("systemctl", "restart", "nfs-server.service")
    before = int(ticks.read_text() or 0)
    eventually(lambda: int(ticks.read_text() or 0) > before + 3, "ticks after the server's restart", 180)
    site.delete("writer")
    site.run(pod("reader", "cat", "/share/ticks", volumes=[volume], container=mount), ("Succeeded",))
    expect(site.logs("reader").strip(), ticks.read_text().strip(), "what the next pod reads")
    site.delete("reader")

    def unmounted() -> bool:  # a pod that has ended goes from the API at once
        kinds = (line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return not {"nfs", "nfs4"} & set(kinds)  # findmnt of util-linux 2.38 ends with 0 also where it finds nothing

    eventually(unmounted, "the end of the mounts", 120)
    host("systemctl", "stop", "nfs-server.service")
    return " ".join(kind.split())


def _exported() -> Path:
    """A folder that this machine's NFS server gives out."""
    export = Path("/srv/share")
    export.mkdir(parents=True, exist_ok=True)
    export.chmod(0o777)
    Path("/etc/exports").write_text(f"{export} {ADDRESS}/24(rw,sync,no_subtree_check,no_root_squash,insecure)\n")
    host("systemctl", "unmask", "nfs-server.service")
    host("systemctl", "start", "nfs-server.service")
    return export


def netem(site: Site) -> str:
    """The fault run of the link over the kernel's netem: delay, loss, repetition, reordering; see `benchmarks.linkfaults`."""
    words = ["-m", "benchmarks.linkfaults", "--netem", "--edges", "1", "--seed", "20261120", "--seconds", "180"]
    words += ["--patience", "6"]  # everything is emulated
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd="/var/tmp", env=_environment(), check=False
    )
    Path("/var/log/linkfaults.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise Failed((done.stdout + done.stderr)[-1500:])
    rows = dict(re.findall(r"^\s*(.+?)\s{2,}(\S+)", done.stdout, re.MULTILINE))
    kept = ("differences at the end", "acknowledged and lost", "took effect twice", "packets carried", "packets lost")
    return "; ".join(f"{name} {rows[name]}" for name in kept if name in rows)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path.cwd()), "LC_ALL": "C.UTF-8"}


def shutdown(site: Site) -> str:
    """`systemctl poweroff` waits until pods have ended in order, and their preStop hooks have run: looked at after the next boot."""
    _PROOF.mkdir(parents=True, exist_ok=True)
    volume = {"name": "proof", "hostPath": {"path": str(_PROOF), "type": "Directory"}}
    mount = {"volumeMounts": [{"name": "proof", "mountPath": "/proof"}]}
    for name, extra in (("ends", {}), ("critical", {"priorityClassName": "system-node-critical"})):
        stop = {"exec": {"command": ["sh", "-c", f"sleep 3; cat /proc/uptime > /proof/{name}"]}}
        spec: dict[str, Any] = {"volumes": [volume], "terminationGracePeriodSeconds": 30, **extra}
        site.run(pod(name, *_SLEEP, container={**mount, "lifecycle": {"preStop": stop}}, **spec))
    listed = host("systemd-inhibit", "--list", "--no-pager")
    if "edgesite" not in listed:
        raise Failed(f"nobody holds shutdowns up: {listed}")
    return "edgesite holds a delay lock; the rest after the next boot"


def ended_in_order(site: Site) -> str:
    """After the shutdown: both hooks had run, the ordinary pod's before the critical one's, and the API knows why the pods ended."""
    times = [float((_PROOF / name).read_text().split()[0]) for name in ("ends", "critical")]
    if times[0] >= times[1]:
        raise Failed(f"the critical pod's hook ran first: {times}")
    found = site.kubectl.json("get", "pod", "ends")
    status = found["status"]
    expect((status["phase"], status.get("reason")), ("Failed", "Terminated"), "the ordinary pod")
    return f"hooks {times[1] - times[0]:.1f} s apart; {status['message']}"


CHECKS: Final[tuple[Callable[[Site], str], ...]] = (
    *(machine, limits, resize, oom, hugepages, privileged, metaserver, nfs, eviction, netem),
)
LAST: Final = shutdown  #: the machine is powered off after it
AFTER: Final = ended_in_order
