"""Keeps the rules as the recorded tunnel ports want them.

Units   Seconds.
Errors  `IptablesError`: the program is missing or refuses.
State   What was last said of a failure, so that a lasting one is logged once.
Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/iptables (every 10 s).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edgesite.cloud.cloudstream.tunnelport import CONFIG_MAP, NAMESPACE, ports_of
from edgesite.cloud.iptablesmanager.rules import CHAIN, COMMENT, JUMPS, changes, listed, wanted
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["IptablesError", "Manager", "run_program"]

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
        try:
            ports = ports_of(await self._client.get(CONFIG_MAPS, CONFIG_MAP, NAMESPACE))
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            ports = {}
        self._made = bool(ports)
        if any(":" in ip for ip in ports):
            self._used.add(6)
        for version in sorted(self._used):
            await self._settle(version, ports)

    async def _settle(self, version: int, ports: Mapping[str, int]) -> None:
        command = [_PROGRAMS[version], "-w", _LOCK_S, "-t", "nat"]
        code, output = await self._run([*command, "-S", CHAIN])
        if code:
            await self._must([*command, "-N", CHAIN])
            output = ""
        for change in changes(listed(output), wanted(ports, self._stream_port, version=version)):
            await self._must([*command, *change])
            self._log.info("%s %s", _PROGRAMS[version], " ".join(change))
        jump = ["-m", "comment", "--comment", COMMENT, "-j", CHAIN]
        for chain in JUMPS:
            if (await self._run([*command, "-C", chain, *jump]))[0]:
                await self._must([*command, "-A", chain, *jump])

    async def _must(self, argv: Sequence[str]) -> None:
        """Raises IptablesError, OSError."""
        code, output = await self._run(argv)
        if code:
            raise IptablesError(f"{' '.join(argv)}: {output or f'exit code {code}'}")
