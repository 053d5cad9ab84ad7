"""Hosts in namespaces of their own (mounts, network, processes, name), joined by a network, on which keadm works as on real ones.

The programs are this environment's. What stands for systemd is keadm_systemctl.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from e2e_site import PROGRAM

HERE = Path(__file__).resolve().parent
NAMES = ("edgesite", "cloudcore", "edgecore", "keadm")
Done = subprocess.CompletedProcess[str]


class Host:
    """One machine; its files are below ``folder`` (etc, var-lib, …)."""

    def __init__(self, folder: Path, name: str, *, systemd: bool = True) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        (folder / "usr-local-bin").mkdir()
        for one in NAMES:
            (folder / "usr-local-bin" / one).symlink_to(PROGRAM)
        if systemd:
            (folder / "run" / "systemd" / "system").mkdir(parents=True)
            script = folder / "usr-local-bin" / "systemctl"
            script.write_text(f"#!{sys.executable}\n{(HERE / 'keadm_systemctl.py').read_text()}")
            script.chmod(0o755)
        unshare = ["unshare", "-m", "-n", "-u", "-p", "-f", "--mount-proc", "--kill-child", "--propagation", "private"]
        self._process = subprocess.Popen(
            [*unshare, sys.executable, str(HERE / "keadm_init.py"), str(folder), name], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"
        self.pid = _children(self._process.pid)[0]
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *argv: str, stdin: str = "", timeout_s: float = 120) -> Done:
        """Run a program there to its end."""
        return subprocess.run(
            self._inside(*argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=_environment(),
        )

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a program there; it ends with the host, if the caller does not end it before."""
        made = subprocess.Popen(
            self._inside(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._started.append(made)
        return made

    def kill(self, started: subprocess.Popen[bytes]) -> None:
        """Kill what `start` began, which is a child of what enters the namespaces."""
        for pid in _children(started.pid):
            os.kill(pid, signal.SIGKILL)
        started.wait(60)

    def keadm(self, *arguments: str, stdin: str = "") -> Done:
        return self.run("keadm", *arguments, stdin=stdin)

    def path(self, absolute: str) -> Path:
        """Where one of its files is for us."""
        for place in ("var-lib", "var-log", "usr-local-bin", "etc", "run"):
            if absolute.startswith(f"/{place.replace('-', '/')}/"):
                return self.folder / place / absolute.removeprefix(f"/{place.replace('-', '/')}/")
        raise AssertionError(absolute)

    def files(self) -> set[str]:
        """All that keadm may have made or changed, as path and contents."""
        found = set()
        for place in (
            "etc/kubeedge",
            "etc/systemd/system",
            "var-lib/kubeedge",
            "var-lib/keadm",
            "var-lib/edged",
            "var-log/kubeedge",
        ):
            top = self.folder / place
            for folder, _, names in os.walk(top):
                found.add(folder)
                found |= {
                    f"{folder}/{one}: {(Path(folder) / one).read_bytes()!r}"
                    for one in names
                    if (Path(folder) / one).is_file()
                }
        return found

    def log(self, unit: str) -> str:
        file = self.path(f"/run/units/{unit}.log")
        return file.read_text(errors="replace") if file.exists() else ""

    def close(self) -> None:
        """End it with all that runs in it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for one in (self._process, *self._started):
            one.kill()
            one.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _inside(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-p", *argv]


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGESITE_", "KUBE"))}
    return {**kept, "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root"}


def connect(left: Host, right: Host) -> None:
    """A cable between two hosts: 10.9.0.1 and 10.9.0.2."""
    left_end = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(right.pid)]
    for host, command in (
        (left, left_end),
        (left, ["ip", "address", "add", "10.9.0.1/24", "dev", "eth0"]),
        (right, ["ip", "address", "add", "10.9.0.2/24", "dev", "eth0"]),
        (left, ["ip", "link", "set", "eth0", "up"]),
        (right, ["ip", "link", "set", "eth0", "up"]),
    ):
        subprocess.run(["nsenter", "-t", str(host.pid), "-n", *command], check=True)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """A cloud side and an edge."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(contextlib.closing(Host(folder / "cloud", "cloud-host")))
        edge = stack.enter_context(contextlib.closing(Host(folder / "edge", "edge-host")))
        connect(cloud, edge)
        yield cloud, edge
