"""The network of `lossynet` as the kernel makes it: veth links on a bridge, impaired by tc's netem.

Each namespace has one interface, named as there, with netem on what it sends. The bridge is in the first namespace.

Needs root, `ip`, `tc`, and a kernel with sch_netem, veth and bridge.
Source  tc-netem(8).
"""

from __future__ import annotations

import json
import subprocess
from typing import Final

from benchmarks.lossynet import INTERFACE, Impairment

__all__ = ["NetemNet"]

_LIMIT: Final = 2000
_COUNTED: Final = {"packets": "carried", "drops": "lost"}


class NetemNet:
    """Takes the place of a `LossyNet`; setting ``impairment`` holds at once."""

    def __init__(self, impairment: Impairment) -> None:
        self._impairment = impairment
        self._spaces: list[str] = []

    @property
    def impairment(self) -> Impairment:
        return self._impairment

    @impairment.setter
    def impairment(self, wanted: Impairment) -> None:
        self._impairment = wanted
        for space in self._spaces:
            self._impair(space)

    @property
    def counts(self) -> dict[str, int]:
        """What netem says of packets, for each interface since it was last up."""
        found = dict.fromkeys(_COUNTED.values(), 0)
        for space in self._spaces:
            words = ["tc", "-n", space, "-s", "-j", "qdisc", "show", "dev", INTERFACE]
            shown = subprocess.run(words, check=True, capture_output=True).stdout
            for row in json.loads(shown):
                if row.get("kind") == "netem":
                    for name, text in _COUNTED.items():
                        found[text] += int(row.get(name, 0))
        return found

    def add(self, namespace: str, number: int) -> str:
        """Connect a namespace; returns its address."""
        if not self._spaces:
            _ip(namespace, "link add switch0 type bridge")
            _ip(namespace, "link set switch0 up")
        first = self._spaces[0] if self._spaces else namespace
        address, port = f"10.77.0.{number}", f"port{number}"
        _ip(first, f"link add {port} type veth peer name {INTERFACE} netns {namespace}")
        _ip(first, f"link set {port} master switch0 up")
        _ip(namespace, f"addr add {address}/24 dev {INTERFACE}")
        _ip(namespace, f"link set {INTERFACE} up")
        _ip(namespace, "link set lo up")
        self._spaces.append(namespace)
        self._impair(namespace)
        return address

    def close(self) -> None:
        """The links go with their namespaces."""
        self._spaces.clear()

    def _impair(self, namespace: str) -> None:
        one = self._impairment
        words = [
            *("tc", "-n", namespace, "qdisc", "replace", "dev", INTERFACE, "root", "netem", "limit", str(_LIMIT)),
            *("delay", f"{one.delay_s * 1000:g}ms", f"{one.jitter_s * 1000:g}ms"),
            *("loss", f"{one.loss * 100:g}%", "duplicate", f"{one.duplicate * 100:g}%"),
            *(("reorder", f"{one.reorder * 100:g}%") if one.reorder else ()),
        ]
        subprocess.run(words, check=True)


def _ip(namespace: str, words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words.split()], check=True)
