"""Rules that lead tunnel ports to stream servers, as argument vectors of iptables; pure.

    *nat  TUNNEL-PORT    -p tcp -m tcp --dport <tunnel port> -j DNAT --to-destination <address>:<stream port>     one for each instance
          OUTPUT, PREROUTING     -m comment --comment "kubeedge tunnel port" -j TUNNEL-PORT

These are the rules of KubeEdge's own manager, so that either may find and keep what the other has made. What is missing is
appended and what is over is deleted: the chain is never empty between two states, which KubeEdge's is at each start.

Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/iptables (chain, comment, rules).
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["CHAIN", "COMMENT", "JUMPS", "Rule", "changes", "listed", "wanted"]

CHAIN: Final = "TUNNEL-PORT"
COMMENT: Final = "kubeedge tunnel port"
JUMPS: Final = ("OUTPUT", "PREROUTING")
_LISTED: Final = re.compile(r"--dport (\d+) .*--to-destination (\S+):(\d+)$")


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One instance: its tunnel port leads to its stream server."""

    port: int
    address: str
    stream_port: int

    @property
    def arguments(self) -> list[str]:
        """The rule as iptables takes it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        to = f"{host}:{self.stream_port}"
        return ["-p", "tcp", "-m", "tcp", "--dport", str(self.port), "-j", "DNAT", "--to-destination", to]


def wanted(ports: Mapping[str, int], stream_port: int, *, version: int) -> set[Rule]:
    """Return the rules for the recorded addresses of one version of IP; what is no address has none."""
    found = set()
    for text, port in ports.items():
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if address.version == version:
            found.add(Rule(port, str(address), stream_port))
    return found


def listed(output: str) -> list[tuple[list[str], Rule | None]]:
    """Read ``iptables -S TUNNEL-PORT``: each rule as its arguments, and as a `Rule` if it is one of this kind."""
    rules = []
    for line in output.splitlines():
        words = shlex.split(line)
        if words[:2] != ["-A", CHAIN]:
            continue
        match = _LISTED.search(line)
        rule = Rule(int(match[1]), match[2].strip("[]"), int(match[3])) if match else None
        rules.append((words[2:], rule))
    return rules


def changes(present: Iterable[tuple[list[str], Rule | None]], target: set[Rule]) -> list[list[str]]:
    """Return the commands, without the program's name, that bring the chain to ``target``: first what is missing."""
    present = list(present)
    there = {rule for _, rule in present if rule is not None}
    missing = [["-A", CHAIN, *rule.arguments] for rule in sorted(target - there)]
    kept: set[Rule] = set()
    over = []
    for arguments, rule in present:
        if rule is None or rule not in target or rule in kept:
            over.append(["-D", CHAIN, *arguments])
        else:
            kept.add(rule)
    return missing + over
