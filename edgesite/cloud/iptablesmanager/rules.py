"""Rules that lead tunnel ports to stream servers, as argument vectors of iptables; pure.

    *nat  TUNNEL-PORT-<cluster>  -p tcp -m tcp --dport <tunnel port> -j DNAT --to-destination <address>:<stream port>     one for each instance
          OUTPUT, PREROUTING     -m comment --comment "kubeedge tunnel port" -j TUNNEL-PORT-<cluster>

Each cluster has a chain of its own, named after the ConfigMap that records its ports, for several may have their API servers or cloud
roles on one machine. KubeEdge's manager keeps its rules in ``TUNNEL-PORT``: those of this cluster are taken over from there, others stay.
What is missing is appended and what is over is deleted: no port is without its rule between two states, as at each start of KubeEdge's.

Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/iptables (chain, comment, rules).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["COMMENT", "JUMPS", "Present", "Rule", "chain_of", "changes", "elsewhere", "listed", "wanted"]

_CHAIN: Final = "TUNNEL-PORT"  #: KubeEdge's
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
    def destination(self) -> tuple[str, int]:
        """A stream server, which is one instance's alone."""
        return self.address, self.stream_port

    @property
    def arguments(self) -> list[str]:
        """The rule as iptables takes it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        to = f"{host}:{self.stream_port}"
        return ["-p", "tcp", "-m", "tcp", "--dport", str(self.port), "-j", "DNAT", "--to-destination", to]


@dataclass(frozen=True, slots=True)
class Present:
    """A rule that there is. ``rule`` is None if it is of another kind."""

    chain: str
    arguments: list[str]
    rule: Rule | None


def chain_of(uid: str) -> str:
    """Return the chain of the cluster whose ConfigMap has this uid."""
    return f"{_CHAIN}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}" if uid else _CHAIN


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


def listed(output: str) -> list[Present]:
    """Read what ``iptables -S`` tells of tunnel ports, in whichever chain they are."""
    rules = []
    for line in output.splitlines():
        if not line.startswith(f"-A {_CHAIN}"):  # there may be thousands of others
            continue
        words = shlex.split(line)
        match = _LISTED.search(line)
        rule = Rule(int(match[1]), match[2].strip("[]"), int(match[3])) if match else None
        rules.append(Present(words[1], words[2:], rule))
    return rules


def changes(present: Iterable[Present], target: set[Rule], chain: str) -> list[list[str]]:
    """Return the commands, without the program's name, that bring ``chain`` to ``target``, and what leads to the same stream servers
    out of other chains: first what is missing."""
    present = list(present)
    there = {one.rule for one in present if one.chain == chain}
    missing = [["-A", chain, *rule.arguments] for rule in sorted(target - there)]
    destinations = {rule.destination for rule in target}
    kept: set[Rule] = set()
    over = []
    for one in present:
        if one.chain != chain:
            is_over = one.rule is not None and one.rule.destination in destinations
        else:
            is_over = one.rule is None or one.rule not in target or one.rule in kept
            if one.rule is not None:
                kept.add(one.rule)
        if is_over:
            over.append(["-D", one.chain, *one.arguments])
    return missing + over


def elsewhere(present: Iterable[Present], target: set[Rule], chain: str) -> dict[int, Rule]:
    """Return the ports that the rules of other clusters lead to their own stream servers."""
    own = {rule.destination for rule in target}
    rules = [one.rule for one in present if one.chain != chain and one.rule is not None]
    return {rule.port: rule for rule in rules if rule.destination not in own}
