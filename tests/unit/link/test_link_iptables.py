"""The rules that lead an API server to stream servers, as exact argument vectors."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest

from edgesite.cloud.cloudstream.tunnelport import ANNOTATION, negotiate, ports_of
from edgesite.cloud.iptablesmanager.manager import IptablesError, Manager, ports_elsewhere
from edgesite.cloud.iptablesmanager.rules import Rule, chain_of, changes, elsewhere, listed, wanted
from edgesite.kube.errors import ApiError, conflict, not_found

pytestmark = pytest.mark.anyio

NAT = ["-w", "5", "-t", "nat"]
UID = "11111111-2222-3333-4444-555555555555"
CHAIN = chain_of(UID)
JUMP = ["-m", "comment", "--comment", "kubeedge tunnel port", "-j", CHAIN]


def rule(port: int, to: str, chain: str = CHAIN) -> str:
    return f"-A {chain} -p tcp -m tcp --dport {port} -j DNAT --to-destination {to}"


def test_records_become_rules() -> None:
    ports = {"192.0.2.10": 10351, "2001:db8::7": 10352, "no address": 10353}
    assert wanted(ports, 10003, version=4) == {Rule(10351, "192.0.2.10", 10003)}
    [six] = wanted(ports, 10003, version=6)
    assert six.arguments[-1] == "[2001:db8::7]:10003"


def test_chains_are_short_enough_for_iptables_and_one_for_each_cluster() -> None:
    assert len(CHAIN) <= 28
    assert len({CHAIN, chain_of("another"), chain_of("")}) == 3


def test_what_is_missing_comes_before_what_goes() -> None:
    output = "\n".join(
        [f"-N {CHAIN}", rule(10351, "192.0.2.10:10003"), rule(10351, "192.0.2.10:10003"), rule(10352, "192.0.2.9:1")]
    )
    target = {Rule(10351, "192.0.2.10", 10003), Rule(10353, "192.0.2.11", 10003)}
    assert changes(listed(output), target, CHAIN) == [
        rule(10353, "192.0.2.11:10003").split(),
        ["-D", *rule(10351, "192.0.2.10:10003").split()[1:]],
        ["-D", *rule(10352, "192.0.2.9:1").split()[1:]],
    ]
    assert changes(listed(rule(10353, "192.0.2.11:10003")), {Rule(10353, "192.0.2.11", 10003)}, CHAIN) == []


def test_strange_rules_in_the_chain_are_deleted_as_they_are() -> None:
    output = f'-N {CHAIN}\n-A {CHAIN} -m comment --comment "two words" -j RETURN'
    expected = ["-D", CHAIN, "-m", "comment", "--comment", "two words", "-j", "RETURN"]
    assert changes(listed(output), set(), CHAIN) == [expected]


def test_rules_of_other_clusters_stay_and_those_of_kubeedges_manager_are_taken_over() -> None:
    others = [
        rule(10351, "192.0.2.10:10013", chain_of("another")),
        rule(10352, "192.0.2.10:10023", "TUNNEL-PORT"),
        "-A TUNNEL-PORT -j RETURN",
        "-A KUBE-SERVICES -p tcp -m tcp --dport 10353 -j DNAT --to-destination 192.0.2.10:10003",
    ]
    own = rule(10351, "192.0.2.10:10003", "TUNNEL-PORT")
    target = {Rule(10351, "192.0.2.10", 10003)}
    present = listed("\n".join([*others, own]))
    assert changes(present, target, CHAIN) == [
        rule(10351, "192.0.2.10:10003").split(),
        ["-D", *own.split()[1:]],
    ]
    assert elsewhere(present, target, CHAIN) == {
        10351: Rule(10351, "192.0.2.10", 10013),
        10352: Rule(10352, "192.0.2.10", 10023),
    }


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
            self.found = {**obj, "metadata": {**obj["metadata"], "uid": UID}}
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


async def test_a_port_that_another_cluster_has_on_this_machine_is_exchanged() -> None:
    api: Any = Api()
    clock: Any = NoTime()
    draw = random.Random(1)
    said = [rule(10351, "192.0.2.10:10013", chain_of("another")), rule(10352, "192.0.2.10:10003", "TUNNEL-PORT")]

    async def run(argv: Sequence[str]) -> tuple[int, str]:
        assert list(argv) == ["iptables", *NAT, "-S"]
        return 0, "\n".join(said)

    async def taken(config_map: dict[str, Any] | None) -> set[int]:
        return await ports_elsewhere(config_map, "192.0.2.10", 10003, run)

    assert await negotiate(api, "192.0.2.10", clock, draw, taken) == 10352, "our own rule of before is in nobody's way"
    assert await negotiate(api, "192.0.2.10", clock, draw, taken) == 10352
    said.append(rule(10352, "192.0.2.10:10023", chain_of("a third")))
    assert await negotiate(api, "192.0.2.10", clock, draw, taken) == 10353
    assert ports_of(api.found) == {"192.0.2.10": 10353}


async def test_where_rules_cannot_be_read_no_port_is_taken() -> None:
    async def refused(_: Sequence[str]) -> tuple[int, str]:
        return 4, "Permission denied (you must be root)"

    async def missing(_: Sequence[str]) -> tuple[int, str]:
        raise FileNotFoundError("iptables")

    assert [await ports_elsewhere(None, "::1", 10003, one) for one in (refused, missing)] == [set(), set()]


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
        if argv[5] == "-S" and len(argv) > 6 and not self.has_chain:
            return 1, "No chain/target/match by that name."
        return (1, "") if argv[5] == "-C" else (0, f"-N {CHAIN}" if self.has_chain else "")


async def test_the_commands_are_these() -> None:
    api: Any = Api()
    clock: Any = NoTime()
    machine = Machine()
    manager = Manager(api, 10003, clock, random.Random(1), logging.getLogger("test"), machine.run)
    await manager.settle()
    assert machine.said == [], "no record, no rule"
    await negotiate(api, "192.0.2.10", clock, random.Random(1))
    await manager.settle()
    assert machine.said == [
        ["iptables", *NAT, "-S"],
        ["iptables", *NAT, "-N", CHAIN],
        ["iptables", *NAT, *rule(10351, "192.0.2.10:10003").split()],
        *[["iptables", *NAT, flag, chain, *JUMP] for chain in ("OUTPUT", "PREROUTING") for flag in ("-C", "-A")],
    ]
    machine.fail = "-N"
    with pytest.raises(IptablesError, match="you must be root"):
        await manager.settle()
    machine.fail, machine.has_chain, machine.said = "", True, []
    await manager.settle()
    assert machine.said[0] == ["iptables", *NAT, "-S", CHAIN], "others are looked at once"
    api.found = None
    machine.said = []
    await manager.settle()
    assert [argv[5] for argv in machine.said[:2]] == ["-S", "-C"], "the record is gone"


async def test_two_clusters_that_have_one_port_on_one_machine_are_named(caplog: pytest.LogCaptureFixture) -> None:
    api: Any = Api()
    clock: Any = NoTime()
    await negotiate(api, "192.0.2.10", clock, random.Random(1))

    async def run(argv: Sequence[str]) -> tuple[int, str]:
        return 0, rule(10351, "192.0.2.10:10013", chain_of("another")) if argv[5:] == ["-S"] else f"-N {CHAIN}"

    manager = Manager(api, 10003, clock, random.Random(1), logging.getLogger("test"), run)
    for _ in range(3):
        await manager.settle()
    assert caplog.text.count("tunnel port 10351 is another cluster's on this machine, too") == 1
