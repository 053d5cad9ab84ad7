"""Keeps the rules as the recorded tunnel ports want them.

Units   Seconds.
Errors  `IptablesError`: the program is missing or refuses.
State   What was last said of a failure, so that a lasting one is logged once; the chain, which is looked for elsewhere only when it is new.
Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/iptables (every 10 s).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.cloudstream.tunnelport import CONFIG_MAP, NAMESPACE, ports_of
from edgesite.cloud.iptablesmanager.rules import COMMENT, JUMPS, Rule, chain_of, changes, elsewhere, listed, wanted
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["IptablesError", "Manager", "ports_elsewhere", "run_program"]

#: Runs an argument vector; returns exit code and output.
Run = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
_PROGRAMS: Final = {4: "iptables", 6: "ip6tables"}
_LOOK_S: Final = 10.0
_FIRST_LOOK_S: Final = 1.0
_LOCK_S: Final = "5"  #: how long iptables waits for others that change rules
_DEADLINE_S: Final = 30.0


class IptablesError(Exception):
    """A command failed."""


async def run_program(argv: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end. Raises OSError, TimeoutError."""
    import subprocess

    import anyio

    with anyio.fail_after(_DEADLINE_S):
        done = await anyio.run_process(argv, check=False, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


async def ports_elsewhere(
    config_map: dict[str, Any] | None, ip: str, stream_port: int, run: Run = run_program
) -> set[int]:
    """Return the tunnel ports of this machine that rules lead to other clusters than the one of this ConfigMap; none where rules cannot be
    read. ``ip`` is about to be recorded. Raises nothing."""
    version = 6 if ":" in ip else 4
    try:
        code, output = await run([*_command(version), "-S"])
    except OSError:
        return set()
    target = wanted({**ports_of(config_map or {}), ip: 0}, stream_port, version=version)
    chain = chain_of(_uid(config_map)) if config_map else ""
    return set() if code else set(elsewhere(listed(output), target, chain))


def _command(version: int) -> list[str]:
    return [_PROGRAMS[version], "-w", _LOCK_S, "-t", "nat"]


def _uid(config_map: dict[str, Any] | None) -> str:
    return str(((config_map or {}).get("metadata") or {}).get("uid") or "")


class Manager:
    """``run`` until cancelled. ``stream_port`` is the same for all instances."""

    def __init__(
        self,
        client: Client,
        stream_port: int,
        clock: Clock,
        draw: random.Random,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        run: Run = run_program,
    ) -> None:
        self._client = client
        self._stream_port = stream_port
        self._clock = clock
        self._random = draw
        self._log = log
        self._run = run
        self._said = ""
        self._chain = ""  # of this cluster, once it is known
        self._searched: set[tuple[int, str]] = set()  # chains that were put in place with a look at all others
        self._made = False  # some rule
        self._used = {4}  # versions of IP for which there are, or were, rules

    async def run(self) -> None:
        while True:
            try:
                await self.settle()
            except (ApiError, IptablesError, OSError) as exc:  # TimeoutError is an OSError
                if str(exc) != self._said:
                    self._said = str(exc)
                    self._log.warning("the API server cannot be led to nodes: %s", exc or "a command did not end")
            else:
                self._said = ""
            look_s = (
                _LOOK_S if self._made else _FIRST_LOOK_S
            )  # the port of the instance beside us is recorded about now
            await self._clock.sleep(look_s * (0.9 + self._random.random() / 5))

    async def settle(self) -> None:
        """Make the rules what they should be now. Raises ApiError, IptablesError, OSError."""
        ports: Mapping[str, int] = {}
        try:
            found = await self._client.get(CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
        else:
            ports, self._chain = ports_of(found), chain_of(_uid(found))
        self._made = bool(ports)
        if any(":" in ip for ip in ports):
            self._used.add(6)
        for version in sorted(self._used) if self._chain else ():
            await self._settle(version, wanted(ports, self._stream_port, version=version))

    async def _settle(self, version: int, target: set[Rule]) -> None:
        command, chain = _command(version), self._chain
        is_new = (version, chain) not in self._searched
        code, output = await self._run([*command, "-S", *(() if is_new else (chain,))])
        if code and is_new:
            raise IptablesError(f"{' '.join(command)} -S: {output or f'exit code {code}'}")
        if f"-N {chain}" not in output.splitlines():
            await self._must([*command, "-N", chain])
        present = listed(output)
        for change in changes(present, target, chain):
            await self._must([*command, *change])
            self._log.info("%s %s", _PROGRAMS[version], " ".join(change))
        jump = ["-m", "comment", "--comment", COMMENT, "-j", chain]
        for place in JUMPS:
            if (await self._run([*command, "-C", place, *jump]))[0]:
                await self._must([*command, "-A", place, *jump])
        if is_new:
            self._searched.add((version, chain))
            self._tell_of(elsewhere(present, target, chain), {rule.port for rule in target})

    def _tell_of(self, others: Mapping[int, Rule], ports: set[int]) -> None:
        for port in sorted(ports & others.keys()):
            self._log.error(
                "tunnel port %d is another cluster's on this machine, too: its rules lead it to %s:%d. A restart of one of the two cloud"
                " roles chooses another port",
                port, *others[port].destination,
            )  # fmt: skip

    async def _must(self, argv: Sequence[str]) -> None:
        """Raises IptablesError, OSError."""
        code, output = await self._run(argv)
        if code:
            raise IptablesError(f"{' '.join(argv)}: {output or f'exit code {code}'}")
