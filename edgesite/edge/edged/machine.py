"""Facts of the machine that edged runs on, read from the kernel's files. Blocking: call it in a thread.

`LinuxMachine` is the default; whoever runs the role may provide another `Machine` as a service, as the simulator does.

Units   Bytes; milli-CPUs.
Source  proc(5), os-release(5), machine-id(5); core/v1 NodeSystemInfo.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from edgesite.kube.quantity import parse
from edgesite.net.machine import architecture

__all__ = ["LinuxMachine", "Machine", "MachineFacts", "Pressure"]

UPLINK_RESOLV_CONF: Final = "/run/systemd/resolve/resolv.conf"  #: what systemd-resolved itself asks


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What does not change while edgesite runs, addresses aside."""

    hostname: str
    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    system_uuid: str
    boot_id: str
    cpus: int
    memory_bytes: int
    disk_bytes: int
    addresses: tuple[str, ...]
    resolv_conf: str
    hosts: str
    swap_bytes: int = 0
    unified_cgroups: bool = False  #: version 2 alone
    huge_pages: Mapping[str, int] = field(default_factory=dict)  #: bytes by page size ("2Mi")
    mounts: bool = True  #: whether file systems may be mounted on it at all; a simulated one is a folder of another


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is left right now."""

    memory_available_bytes: int
    disk_available_bytes: int
    disk_bytes: int
    inodes_free: int
    inodes: int
    pids: int
    pids_most: int


class Machine(Protocol):
    """Its methods may block: edged calls them in a thread."""

    def facts(self, data_dir: Path, resolv_conf: str, interface: str) -> MachineFacts:
        """``interface`` names the network interface whose address is the node's; "" takes the default route's."""
        ...

    def pressure(self, data_dir: Path) -> Pressure: ...


class LinuxMachine:
    """The real one."""

    def facts(self, data_dir: Path, resolv_conf: str, interface: str) -> MachineFacts:
        machine_id = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
        return MachineFacts(
            hostname=socket.gethostname(),
            architecture=architecture(),
            kernel=platform.release(),
            os_image=_os_image(),
            machine_id=machine_id,
            system_uuid=_read("/sys/class/dmi/id/product_uuid") or machine_id,
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            cpus=os.cpu_count() or 1,
            memory_bytes=_meminfo("MemTotal"),
            disk_bytes=shutil.disk_usage(data_dir).total,
            addresses=_addresses(interface),
            resolv_conf=_resolv_conf(resolv_conf),
            hosts=_read("/etc/hosts"),
            swap_bytes=_meminfo("SwapTotal"),
            unified_cgroups=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
            huge_pages=_huge_pages(Path("/sys/kernel/mm/hugepages")),
        )

    def pressure(self, data_dir: Path) -> Pressure:
        disk = os.statvfs(data_dir)
        return Pressure(
            memory_available_bytes=_meminfo("MemAvailable"),
            disk_available_bytes=disk.f_bavail * disk.f_frsize,
            disk_bytes=disk.f_blocks * disk.f_frsize,
            inodes_free=disk.f_favail,
            inodes=disk.f_files,
            pids=_tasks(),
            pids_most=int(_read("/proc/sys/kernel/pid_max") or 0),
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not every kernel or container has every file


def _resolv_conf(path: str) -> str:
    """What a pod can use of a resolv.conf: a resolver on the host's own loopback, as systemd's is, it cannot reach."""
    text = _read(path) if path else ""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    if servers and all(one.startswith("127.") or one == "::1" for one in servers):
        return _read(UPLINK_RESOLV_CONF) or text
    return text


def _meminfo(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _huge_pages(root: Path) -> dict[str, int]:
    """Bytes in huge pages of each size; folders are called "hugepages-2048kB"."""
    found = {}
    for folder in sorted(root.glob("hugepages-*kB")):
        kib = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        count = _read(str(folder / "nr_hugepages"))
        found[str(parse(f"{kib}Ki"))] = int(count or 0) * kib * 1024
    return found


def _tasks() -> int:
    """Threads of the whole system: the fourth field of loadavg is running/all."""
    fields = _read("/proc/loadavg").split()
    return int(fields[3].partition("/")[2]) if len(fields) > 3 else 0


def _os_image() -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', _read("/etc/os-release"), re.MULTILINE)
    return match[1] if match else "Linux"


def _addresses(interface: str) -> tuple[str, ...]:
    """The node's address: of the interface asked for, or the one that the kernel would send from. Nothing is sent."""
    if interface and (found := _interface_address(interface)):
        return (found,)
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                return (str(probe.getsockname()[0]),)
        except OSError:
            continue
    return ("127.0.0.1",)


def _interface_address(interface: str) -> str:
    import fcntl
    import struct

    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), siocgifaddr, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
