"""A network of IP packets between network namespaces, through this process: it delays, drops, repeats and reorders them.

Each namespace has one interface ``lossy0`` (a TUN device) in 10.77.0.0/24; what is sent there comes here and goes on to the
namespace that has the address. The kernels' TCP at both ends is real. It does what tc's netem does, and needs no module for it:
kernels without netem are common in virtual machines.

Needs root, `ip`, and /dev/net/tun.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["INTERFACE", "Impairment", "LossyNet", "in_namespace"]

INTERFACE: Final = "lossy0"
_MTU: Final = 1400
_QUEUE: Final = 2000  #: packets under way; more are dropped, as a router's queue does
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to packets, in both directions; shares of them from 0 to 1."""

    delay_s: float = 0.005
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  #: go at once, past those that are delayed


@dataclass(slots=True)
class LossyNet:
    """Open it inside a running loop. ``counts`` says what became of packets."""

    draw: random.Random
    impairment: Impairment = Impairment()
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("carried", "lost", "repeated", "reordered"), 0)
    )
    _ends: dict[bytes, int] = field(default_factory=dict)  # address -> device
    _under_way: int = 0

    def add(self, namespace: str, number: int) -> str:
        """Connect a namespace; returns its address."""
        device = _tun(namespace)
        address = f"10.77.0.{number}"
        for words in (
            f"addr add {address}/24 dev {INTERFACE}",
            f"link set {INTERFACE} mtu {_MTU} up",
            "link set lo up",
        ):
            subprocess.run(["ip", "-n", namespace, *words.split()], check=True)
        self._ends[bytes((10, 77, 0, number))] = device
        asyncio.get_running_loop().add_reader(device, self._came, device)
        return address

    def close(self) -> None:
        for device in self._ends.values():
            asyncio.get_running_loop().remove_reader(device)
            os.close(device)
        self._ends.clear()

    def _came(self, device: int) -> None:
        try:
            packet = os.read(device, 65536)
        except OSError:  # the interface is down
            return
        target = self._ends.get(packet[16:20]) if len(packet) >= 20 and packet[0] >> 4 == 4 else None
        if target is None:
            return
        now = self.impairment
        if self._under_way >= _QUEUE or self.draw.random() < now.loss:
            self.counts["lost"] += 1
            return
        copies = 1 + (self.draw.random() < now.duplicate)
        self.counts["repeated"] += copies - 1
        for _ in range(copies):
            delay_s = now.delay_s + self.draw.random() * now.jitter_s
            if self.draw.random() < now.reorder:
                self.counts["reordered"] += 1
                delay_s = 0.0
            self._under_way += 1
            asyncio.get_running_loop().call_later(delay_s, self._goes, target, packet)

    def _goes(self, target: int, packet: bytes) -> None:
        self._under_way -= 1
        try:
            os.write(target, packet)
            self.counts["carried"] += 1
        except OSError:  # the interface is down, or its queue is full
            self.counts["lost"] += 1


def in_namespace(namespace: str, *words: str) -> list[str]:
    """The command that runs inside."""
    return ["ip", "netns", "exec", namespace, *words]


def _tun(namespace: str) -> int:
    """Make the interface inside; returns the device, which works from everywhere."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with Path(path).open() as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"no way into {path}")

    home = f"/proc/self/task/{_thread()}/ns/net"
    with Path(home).open() as back:
        enter(f"/run/netns/{namespace}")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("16sH22x", INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(device, _TUNSETIFF, request)
        finally:
            if libc.setns(back.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "no way back")
    return device


def _thread() -> int:
    import threading

    return threading.get_native_id()


def make_namespaces(names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)


def remove_namespaces(names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
