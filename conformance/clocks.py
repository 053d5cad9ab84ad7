"""Whole programs whose clock is wrong, and is set while they run: an edge that starts in 1970, or years ahead, and a cloud that does.

    unshare --mount python -m conformance.clocks [--only NAME] [--out FOLDER]

The clock is shifted by a preloaded library (wrongclock.c, built here by ``cc``), which OpenSSL follows, too; the monotonic clock is left
alone, as by whoever sets a clock. Certificates, TLS and processes are real, and volumes are mounted. Prints a line for each scenario,
and ends with 1 if one failed.

Units   Seconds.
"""

from __future__ import annotations

import argparse
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from conformance.external_site import deployment, kill_pods
from conformance.programs import EDGESITE, Failed, Kubectl, Program, eventually, free_ports

_SOURCE: Final = Path(__file__).with_name("wrongclock.c")
_YEAR_S: Final = 31_557_600


class Clock:
    """The time of one program: the file says by how many seconds it is wrong."""

    def __init__(self, path: Path, library: Path) -> None:
        path.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "WRONGCLOCK": str(path)}
        self._path = path

    def right(self) -> None:
        self._set(0)

    def in_1970(self) -> None:
        self._set(180 - int(time.time()))

    def years_ahead(self, years: int) -> None:
        self._set(years * _YEAR_S)

    def _set(self, seconds: int) -> None:
        with self._path.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))


class Role:
    """One of the two programs, with a clock and a log of its own."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.clock = Clock(folder / f"{name}.time", folder / "wrongclock.so")
        self._arguments = arguments
        self.program: Program | None = None
        self._seen = 0

    def start(self, *more: str) -> None:
        """Start it, or start it anew after a kill. Raises Failed."""
        self.kill()
        command = [str(EDGESITE), *self._arguments, "--data-dir", str(self.data), "-v", "2", *more]
        self.program = Program(self.log, command, self.clock.environment)
        self.program.wait_line("eady after")

    def kill(self) -> None:
        if self.program is not None:
            self.program.kill()
            self.program = None

    def news(self) -> str:
        """What it has logged since the last call that found something."""
        return self.log.read_text()[self._seen :]

    def says(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait until it logs that, after what it was last heard to say. Raises Failed."""

        def said() -> bool:
            at = self.news().find(text)
            if at < 0:
                return False
            self._seen += at + len(text)
            return True

        eventually(said, f"{self.log.name} says {text!r}", timeout_s)

    def skip(self) -> None:
        self._seen = len(self.log.read_text())


class Site:
    """A cloud, and an edge of host processes."""

    def __init__(self, folder: Path) -> None:
        api, hub, bootstrap, tunnel = free_ports(4)
        kubelet = "modules.edged.tailoredKubeletConfig"
        ports = ("--hub-port", str(hub), "--bootstrap-port", str(bootstrap), "--tunnel-port", str(tunnel))
        self.folder = folder
        self.cloud = Role(
            folder, "cloud", "cloud", "--api-address", f"127.0.0.1:{api}", "--advertise-address", "127.0.0.1", *ports
        )
        self.edge = Role(
            folder,
            *("edge-1", "edge", "--cloud", "127.0.0.1", "--node-name", "edge-1", "--runtime", "process", *ports),
            *("--set", f"{kubelet}.readOnlyPort=0", "--set", f"{kubelet}.healthzPort=0"),
        )
        self.kubectl = Kubectl("kubectl", self.cloud.data / "admin.kubeconfig")

    def token(self) -> str:
        def read() -> str:
            command = [str(EDGESITE), "token", "--data-dir", str(self.cloud.data)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        return str(eventually(read, "a join token", 30))

    def certificate(self) -> Path | None:
        return next(iter(sorted(self.edge.data.rglob("server.crt"))), None)

    def ready(self, timeout_s: float = 60.0) -> None:
        """The node is Ready, by a lease that has been renewed since. Raises Failed."""
        lease = self._lease()
        eventually(lambda: self._lease() != lease, "the lease is renewed", timeout_s)
        eventually(lambda: self._is_ready(), "the node is ready", timeout_s)

    def _lease(self) -> str:
        done = self.kubectl.run("-n", "kube-node-lease", "get", "lease", "edge-1", "-o", "jsonpath={.spec.renewTime}")
        return done.stdout

    def _is_ready(self) -> bool:
        rows: list[Any] = self.kubectl.json("get", "node", "edge-1")["status"].get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in rows)

    def containers(self) -> list[tuple[str, int]]:
        pods = self.kubectl.json("get", "pods", "-l", "app=web")["items"]
        return sorted(
            (one["containerID"], one["restartCount"])
            for pod in pods
            for one in pod["status"].get("containerStatuses", ())
        )

    def close(self) -> None:
        self.edge.kill()
        self.cloud.kill()
        kill_pods(self.edge.data)


def first_join(site: Site) -> None:
    """An edge that has never joined starts in 1970: it says so once, makes nothing, and joins as soon as its clock is set."""
    site.cloud.start()
    site.edge.clock.in_1970()
    site.edge.start("--token", site.token())
    site.edge.says("is not valid yet by this machine's clock, which says 1970-01-01")
    time.sleep(8)  # some attempts more
    if "no connection to the cloud" in site.edge.news():
        raise Failed("it says so again and again")
    if site.certificate() is not None:
        raise Failed("it has made a certificate")
    site.edge.clock.right()
    began = time.monotonic()
    site.edge.says("connected to the cloud")
    print(f"     connected {time.monotonic() - began:.1f} s after its clock was set", flush=True)
    site.ready()
    site.kubectl.apply(deployment("web", "edge-1", 2))
    site.kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout_s=90)


def boot_without_clock(site: Site) -> None:
    """The device is switched off and on, and starts in 1970 again: pods go on, and it connects as soon as its clock is set."""
    before = site.containers()
    site.edge.kill()
    site.edge.clock.in_1970()
    site.edge.skip()
    site.edge.start()
    site.edge.says("is not valid yet by this machine's clock, which says 1970-01-01")
    site.edge.clock.right()
    site.edge.says("connected to the cloud")
    site.ready()
    if site.containers() != before:
        raise Failed(f"containers were started anew: {before} {site.containers()}")


def years_ahead(site: Site) -> None:
    """A clock that jumps to 2036 while connected: the link holds over a restart of the cloud, nothing is renewed, and it is told."""
    path = site.certificate()
    assert path is not None
    before, pods = path.read_bytes(), site.containers()
    site.edge.clock.years_ahead(10)
    site.edge.skip()
    site.ready()
    site.cloud.kill()
    site.cloud.start()
    site.edge.says("ahead of the cloud's, where it is")
    site.edge.says("connected to the cloud")
    site.ready()
    site.edge.kill()
    site.edge.start()
    site.edge.says("connected to the cloud")
    time.sleep(5)
    if path.read_bytes() != before:
        raise Failed("the certificate was renewed")
    site.edge.clock.right()
    site.ready()
    if site.containers() != pods:
        raise Failed("containers were started anew")


def beyond_all_certificates(site: Site) -> None:
    """A clock beyond the end of the cloud's certificates, a hundred years on: it says so, and connects as soon as it is set."""
    site.edge.kill()
    site.edge.clock.years_ahead(105)
    site.edge.skip()
    site.edge.start()
    site.edge.says("has expired by this machine's clock, which says 21")
    site.edge.clock.right()
    site.edge.says("connected to the cloud")
    site.ready()


def cloud_in_1970(site: Site) -> None:
    """The cloud starts in 1970: the edge says whose clock it is about, nothing is signed, and all goes on once it is set."""
    path = site.certificate()
    assert path is not None
    before, ca = path.read_bytes(), sorted(site.cloud.data.rglob("ca.crt"))[0].read_bytes()
    site.cloud.kill()
    site.cloud.clock.in_1970()
    site.edge.skip()
    site.cloud.start()
    site.edge.says("refuses our certificate, which may be not valid yet by its clock")
    site.cloud.says("is not valid yet by this machine's clock, which says 1970-01-01")
    site.cloud.clock.right()
    site.edge.says("connected to the cloud")
    site.ready()
    if path.read_bytes() != before or sorted(site.cloud.data.rglob("ca.crt"))[0].read_bytes() != ca:
        raise Failed("certificates were made anew")


def site_in_1970(site: Site) -> None:
    """A whole site is made in 1970; its certificates serve once the clock is set, also over a restart."""
    (api,) = free_ports(1)
    kubelet = "edge.modules.edged.tailoredKubeletConfig"
    ports = ("--set", f"{kubelet}.readOnlyPort=0", "--set", f"{kubelet}.healthzPort=0")
    whole = Role(site.folder, "whole", "up", "--api-address", f"127.0.0.1:{api}", "--runtime", "process", *ports)
    kubectl = Kubectl("kubectl", whole.data / "admin.kubeconfig")
    try:
        whole.clock.in_1970()
        whole.start()
        whole.clock.right()
        eventually(lambda: kubectl("get", "nodes", "--no-headers"), "the node is there", 60)
        whole.start()
        eventually(lambda: " Ready" in kubectl("get", "nodes"), "the node is ready", 60)
    finally:
        whole.kill()


_SCENARIOS: Final[tuple[Callable[[Site], None], ...]] = (
    *(first_join, boot_without_clock, years_ahead, beyond_all_certificates, cloud_in_1970, site_in_1970),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance.clocks", description="Programs whose clock is wrong.")
    parser.add_argument("--only", default="", help="end after the scenario of this name")
    parser.add_argument("--out", type=Path, help="folder for data and logs")
    arguments = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="edgesite-clocks-"))
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(out / "wrongclock.so"), str(_SOURCE)], check=True)
    with ExitStack() as stack:
        site = Site(out)
        stack.callback(site.close)
        for scenario in _SCENARIOS:
            began = time.monotonic()
            try:
                scenario(site)
            except Failed as exc:
                print(f"FAIL {scenario.__name__}: {exc}; logs in {out}", flush=True)
                return 1
            word = (scenario.__doc__ or "").strip()
            print(f"ok   {scenario.__name__:24} {time.monotonic() - began:6.1f} s  {word}", flush=True)
            if scenario.__name__ == arguments.only:
                break
    print(f"0 failed; logs in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
