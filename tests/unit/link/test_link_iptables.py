"""The rules that lead an API server to stream servers, as exact argument vectors."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest

from edgesite.cloud.cloudstream.tunnelport import ANNOTATION, negotiate, ports_of
from edgesite.cloud.iptablesmanager.manager import IptablesError, Manager
from edgesite.cloud.iptablesmanager.rules import Rule, changes, listed, wanted
from edgesite.kube.errors import ApiError, conflict, not_found

pytestmark = pytest.mark.anyio

NAT = ["-w", "5", "-t", "nat"]
JUMP = ["-m", "comment", "--comment", "kubeedge tunnel port", "-j", "TUNNEL-PORT"]


def rule(port: int, to: str) -> str:
    return f"-A TUNNEL-PORT -p tcp -m tcp --dport {port} -j DNAT --to-destination {to}"


def test_records_become_rules() -> None:
    ports = {"192.0.2.10": 10351, "2001:db8::7": 10352, "no address": 10353}
    assert wanted(ports, 10003, version=4) == {Rule(10351, "192.0.2.10", 10003)}
    [six] = wanted(ports, 10003, version=6)
    assert six.arguments[-1] == "[2001:db8::7]:10003"


def test_what_is_missing_comes_before_what_goes() -> None:
    output = "\n".join(
        ["-N TUNNEL-PORT", rule(10351, "192.0.2.10:10003"), rule(10351, "192.0.2.10:10003"), rule(10352, "192.0.2.9:1")]
    )
    target = {Rule(10351, "192.0.2.10", 10003), Rule(10353, "192.0.2.11", 10003)}
    assert changes(listed(output), target) == [
        rule(10353, "192.0.2.11:10003").split(),
        ["-D", *rule(10351, "192.0.2.10:10003").split()[1:]],
        ["-D", *rule(10352, "192.0.2.9:1").split()[1:]],
    ]
    assert changes(listed(rule(10353, "192.0.2.11:10003")), {Rule(10353, "192.0.2.11", 10003)}) == []


def test_strange_rules_in_the_chain_are_deleted_as_they_are() -> None:
    output = '-N TUNNEL-PORT\n-A TUNNEL-PORT -m comment --comment "two words" -j RETURN'
    expected = ["-D", "TUNNEL-PORT", "-m", "comment", "--comment", "two words", "-j", "RETURN"]
    assert changes(listed(output), set()) == [expected]


class Api:
    """One ConfigMap."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.races = 0

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.found is None:
            raise not_found("configmaps", "tunnelport")
        return self.found

    async def create(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        if obj["kind"] == "ConfigMap":
            self.found = obj
        return obj

    async def update(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        if self.races:
            self.races -= 1
            raise conflict("configmaps", "tunnelport", "changed")
        self.found = obj
        return obj


class NoTime:
    async def sleep(self, seconds: float) -> None: ...

    def monotonic(self) -> float:
        return 0.0


async def test_each_instance_has_a_port_of_its_own() -> None:
    api: Any = Api()
    clock: Any = NoTime()
    draw = random.Random(1)
    assert await negotiate(api, "192.0.2.10", clock, draw) == 10351
    api.races = 3
    assert await negotiate(api, "192.0.2.11", clock, draw) == 10352
    assert await negotiate(api, "192.0.2.10", clock, draw) == 10351
    assert ports_of(api.found) == {"192.0.2.10": 10351, "192.0.2.11": 10352}
    api.races = 1000
    with pytest.raises(ApiError, match="others write all the time"):
        await negotiate(api, "192.0.2.12", clock, draw)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"ipTunnelPort":3}', '{"ipTunnelPort":{"192.0.2.1":"x"}}'])
def test_records_that_cannot_be_read_are_none(text: str) -> None:
    assert ports_of({"metadata": {"annotations": {ANNOTATION: text}}}) == {}


class Machine:
    """Answers commands, and remembers them."""

    def __init__(self) -> None:
        self.said: list[list[str]] = []
        self.fail = ""
        self.has_chain = False

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        self.said.append(list(argv))
        if self.fail and argv[5] == self.fail:
            return 4, "Permission denied (you must be root)"
        if argv[5] == "-S" and not self.has_chain:
            return 1, "No chain/target/match by that name."
        return (1, "") if argv[5] == "-C" else (0, "-N TUNNEL-PORT")


async def test_the_commands_are_these() -> None:
    api: Any = Api()
    clock: Any = NoTime()
    await negotiate(api, "192.0.2.10", clock, random.Random(1))
    machine = Machine()
    manager = Manager(api, 10003, clock, random.Random(1), logging.getLogger("test"), machine.run)
    await manager.settle()
    assert machine.said == [
        ["iptables", *NAT, "-S", "TUNNEL-PORT"],
        ["iptables", *NAT, "-N", "TUNNEL-PORT"],
        ["iptables", *NAT, *rule(10351, "192.0.2.10:10003").split()],
        *[["iptables", *NAT, flag, chain, *JUMP] for chain in ("OUTPUT", "PREROUTING") for flag in ("-C", "-A")],
    ]
    machine.fail = "-N"
    with pytest.raises(IptablesError, match="you must be root"):
        await manager.settle()
    api.found = None
    machine.fail, machine.has_chain, machine.said = "", True, []
    await manager.settle()
    assert [argv[5] for argv in machine.said[:2]] == ["-S", "-C"], "no record, no rule"
