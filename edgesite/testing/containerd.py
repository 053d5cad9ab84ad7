"""A containerd of one's own: its own root, state, socket, network and images, gone without a trace at the end.

Needs root, containerd, runc or crun, ``ctr``, ``ip`` and CNI's plugins, as Debian packages them. The environment variable
``EDGESITE_TEST_CONTAINERD`` names a folder with another containerd, its ``ctr`` and shim (``python tests/peers.py containerd``); ``EDGESITE_TEST_OCI``
another program that runs containers.

Errors  RuntimeError when containerd does not come up (its log is in the message), and when something of it cannot be removed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgesite.kube import json
from edgesite.testing.images import ImageParts, build_image, oci_archive

__all__ = ["BUSYBOX", "Containerd", "close_noted", "containerd"]

BUSYBOX: Final = "docker.io/library/busybox:test"
PAUSE: Final = "registry.k8s.io/pause:test"
START_S: Final = 90.0  #: a bound for failures
END_S: Final = 0.5  #: for a process that was killed to be noticed
CNI_BIN: Final = next((one for one in ("/usr/lib/cni", "/opt/cni/bin") if Path(one).is_dir()), "/opt/cni/bin")

#: The runtime "test-handler" is the same by another name, for RuntimeClasses; Kubernetes' own tests want it named so.
_CONFIG: Final = """
version = 2
root = "{root}/root"
state = "{root}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  enable_selinux = false
  disable_apparmor = true
  disable_hugetlb_controller = {no_hugetlb}
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{root}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "oci"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.oci]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.oci.options]
        BinaryName = "{oci}"
        SystemdCgroup = {systemd}
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.test-handler]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.test-handler.options]
        BinaryName = "{oci}"
        SystemdCgroup = {systemd}
"""


def _oci_runtime() -> str:
    """crun, which is the faster one, except where cgroups are hybrid with controllers in v2: it refuses those."""
    try:
        return "runc" if Path("/sys/fs/cgroup/unified/cgroup.controllers").read_text().strip() else "crun"
    except FileNotFoundError:
        return "crun"


class Containerd:
    """Use it through `containerd`. ``endpoint`` is what CRI clients dial, ``oci`` what runs the containers; `restart` and `pause` are for fault tests."""

    def __init__(self, root: Path, *, oci: str = "", systemd: bool = False, bridge: str = "") -> None:
        """``systemd`` has it make cgroups, as it should on a host that it runs; huge pages are limited then, too. ``bridge`` is that of
        one which somebody else has left, to be closed here."""
        self.root = root
        self._systemd = systemd
        self.socket = root / "containerd.sock"
        self.endpoint = f"unix://{self.socket}"
        self.bridge = bridge or f"es{secrets.token_hex(4)}"
        # A subnet of its own out of 10.96.0.0/11: two of us may run on one machine.
        number = secrets.randbelow(8192)
        self.subnet = ipaddress.ip_network((int(ipaddress.ip_address("10.96.0.0")) + number * 256, 24))
        self.images: dict[str, ImageParts] = {
            BUSYBOX: build_image(),
            PAUSE: build_image(("/bin/busybox", "sleep", "2147483647"), ()),
        }
        self.oci = oci or os.environ.get("EDGESITE_TEST_OCI") or shutil.which(_oci_runtime()) or "runc"
        self._process: subprocess.Popen[bytes] | None = None
        other = os.environ.get("EDGESITE_TEST_CONTAINERD")  # its shim is found by the path, too
        self._environment = os.environ | ({"PATH": f"{other}:{os.environ['PATH']}"} if other else {})

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError."""
        systemd = {"systemd": str(self._systemd).lower(), "no_hugetlb": str(not self._systemd).lower()}
        config = _CONFIG.format(root=self.root, pause=PAUSE, cni_bin=CNI_BIN, oci=self.oci, **systemd)
        (self.root / "config.toml").write_text(config)
        (self.root / "net.d").mkdir(exist_ok=True)
        (self.root / "net.d" / "10-test.conflist").write_bytes(json.dumps(self._network()))
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program("containerd"), "--config", str(self.root / "config.toml")],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                process_group=0,  # what a terminal tells us is not for it: it is to end after its containers
            )
        deadline = time.monotonic() + START_S
        while (state := self._cri_state()) != "ok":
            if state == "error" or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not come up:\n{(self.root / 'log').read_text()[-4000:]}")
            time.sleep(0.05)

    def load(self, images: dict[str, ImageParts] | None = None) -> None:
        """Import images; ours by default. Raises RuntimeError."""
        archive = self.root / "images.tar"
        archive.write_bytes(oci_archive(images or self.images))
        done = self._ctr("-n", "k8s.io", "images", "import", str(archive))
        archive.unlink()
        if done.returncode:
            raise RuntimeError(f"images cannot be imported: {done.stderr.decode()}")

    def kill(self) -> None:
        """End the daemon at once; containers go on under their shims."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """Kill the daemon and start it again on the same state."""
        self.kill()
        self.start()

    def reboot(self) -> None:
        """What a reboot leaves: nothing that ran, nothing below the state folder, everything below the root folder."""
        self.kill()
        shims = self._shims()
        for pid in (*_children(shims), *shims):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.root / "state", ignore_errors=True)
        self.start()

    def hang(self) -> None:
        """Stop the daemon from answering, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything that was started here and remove what it made."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.resume()
                self._remove_sandboxes()
            elif self._process is None and self._daemons():  # left by whoever started it
                with contextlib.suppress(Exception):  # it may hang, or end just now
                    self._remove_sandboxes()
        finally:  # what a broken test left in a state that cannot be removed shall still not stay
            self._end_processes()
            self._remove_files()
        if left := [*self.mounts(), *(f"process {pid}" for pid in self._shims()), *self._links(), *self._rules()]:
            raise RuntimeError(f"of containerd in {self.root} there is still {left}")

    def _end_processes(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        shims = self._shims()
        for pid in (*self._daemons(), *_children(shims), *shims):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _remove_files(self) -> None:
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        for link in self._links():
            subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        for rule in self._rules():
            subprocess.run(["iptables", "-w", "-t", "nat", *rule], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def pids(self) -> list[int]:
        """The daemon, if it runs, and the shims of its sandboxes."""
        return ([self._process.pid] if self._process is not None else []) + self._shims()

    def addresses(self) -> list[str]:
        """Addresses that sandboxes hold: a network that was never released keeps its own."""
        folder = self.root / "cni" / self.bridge
        return sorted(one.name for one in folder.iterdir() if one.name[0].isdigit()) if folder.is_dir() else []

    def mounts(self) -> list[str]:
        """Mount points below the root, in the order in which they were made."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [path for line in lines if (path := line.split(" ")[4]).startswith(f"{self.root}/")]

    def _links(self) -> list[str]:
        """The bridge and what is plugged into it: ends of sandboxes that were never removed."""
        bridge = Path("/sys/class/net", self.bridge)
        ports = [one.name for one in (bridge / "brif").iterdir()] if bridge.exists() else []
        return [*ports, *([self.bridge] if bridge.exists() else [])]

    def _rules(self) -> list[list[str]]:
        """What deletes the rules for host ports of sandboxes that were never removed: words for iptables."""
        done = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=False)
        words = [shlex.split(line) for line in done.stdout.splitlines() if f'name: \\"{self.bridge}\\"' in line]
        chains = [one[one.index("-j") + 1] for one in words]
        return [["-D", *one[1:]] for one in words] + [[option, one] for one in chains for option in ("-F", "-X")]

    def _network(self) -> dict[str, object]:
        return {
            "cniVersion": "0.4.0",
            "name": self.bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": str(self.subnet)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.root / "cni"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _remove_sandboxes(self) -> None:
        import anyio

        from edgesite.edge.edged.cgroups import remove_cgroup
        from edgesite.edge.edged.cri.runtime import CriRuntime
        from edgesite.edge.edged.resources import cgroup_parents
        from edgesite.edge.edged.runtime import Runtime, RuntimeFault
        from edgesite.testing.runtime import running

        async def remove_one(runtime: Runtime, sandbox_id: str) -> None:
            try:
                await runtime.stop_sandbox(sandbox_id)
                await runtime.remove_sandbox(sandbox_id)
            except RuntimeFault:  # of a start that was cut off a process may be left: removing its container ends that
                for container in await runtime.list_containers(sandbox_id):
                    with contextlib.suppress(RuntimeFault):
                        await runtime.remove_container(container.id)
                await anyio.sleep(END_S)
                await runtime.remove_sandbox(sandbox_id)

        async def remove() -> None:
            async with running(CriRuntime(self.endpoint, "", request_timeout_s=30.0)) as runtime:
                for sandbox in await runtime.list_sandboxes():
                    await remove_one(runtime, sandbox.id)
                    for parent in cgroup_parents(sandbox.uid):
                        remove_cgroup(parent)

        anyio.run(remove)

    def _program(self, name: str) -> str:
        return shutil.which(name, path=self._environment["PATH"]) or name

    def _shims(self) -> list[int]:
        return _named(b"containerd-shim", str(self.socket))

    def _daemons(self) -> list[int]:
        """The daemon, whoever started it."""
        return _named(b"containerd", str(self.root / "config.toml"))

    def _cri_state(self) -> str:
        """What became of containerd's CRI plugin: "ok", "error", or "" while nobody answers."""
        rows = self._ctr("plugins", "ls", "type==io.containerd.grpc.v1,id==cri").stdout.decode().splitlines()[1:]
        return next((row.split()[-1] for row in rows), "")

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._program("ctr"), "-a", str(self.socket), "--connect-timeout", "2s", *arguments],
            capture_output=True,
            timeout=60,
            check=False,
        )


def _named(program: bytes, argument: str) -> list[int]:
    """Processes of a program that were given an argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if program in arguments[0] and argument.encode() in arguments:
            found.append(int(entry.name))
    return found


def _children(parents: list[int]) -> list[int]:
    """Programs of containers: their shim is their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) in parents:
                    found.append(int(entry.name))
    return found


@contextmanager
def containerd(
    *, oci: str = "", store_mib: int = 0, systemd: bool = False, note: Path | None = None
) -> Iterator[Containerd]:
    """Run a containerd with busybox loaded, and end it with all that it left; ``store_mib`` gives it a disk of its own, that large.

    ``note`` is a file that is told of it before it starts: `close_noted` ends it if we are killed. Raises RuntimeError.
    """
    root = Path(tempfile.mkdtemp(prefix="edgesite-cd-"))
    root.chmod(0o711)  # containers with users of their own come through here
    daemon = Containerd(root, oci=oci, systemd=systemd)
    if note is not None:
        note.write_text(f"{root}\n{daemon.bridge}\n")
    try:
        if store_mib:
            (root / "root").mkdir()
            options = ["-t", "tmpfs", "-o", f"size={store_mib}m"]
            subprocess.run(["mount", *options, "edgesite-test", str(root / "root")], check=True, capture_output=True)
        daemon.start()
        daemon.load()
        yield daemon
    finally:
        daemon.close()


def close_noted(note: Path) -> None:
    """End the containerd that a note tells of, and all that is left of it; its own program must be gone. Raises RuntimeError, OSError."""
    root, bridge = note.read_text().splitlines()
    if Path(root).is_dir():
        Containerd(Path(root), bridge=bridge).close()
