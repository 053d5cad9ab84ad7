"""One run: its steps, and the report.

Units   Rates are per second of wall clock, ``per core`` per second of CPU of the cloud role's process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cli.edgemark.fleet import Fleet, read_ca
from edgesite.cli.edgemark.measure import ProcessUse, percentiles, process_use, startup_table
from edgesite.cli.edgemark.pods import Pods
from edgesite.cli.edgemark.progress import Progress

if TYPE_CHECKING:
    import argparse
    import random

    from edgesite.client import Client
    from edgesite.context import Clock, Net

__all__ = ["MarkRun", "Report"]

_STEP_S: Final = 600.0
_SETTLED_S: Final = 2.0
_RECORDED_S: Final = 12.0


@dataclass(slots=True)
class Report:
    """The figures by name, and the same as lines to read."""

    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, text: str) -> None:
        self.figures[name] = round(value, 6)
        self.lines.append(f"{text:<62}{value:>14,.2f}")


class MarkRun:
    """``run`` does all steps that the options ask for; ``report`` holds what was measured."""

    def __init__(
        self,
        options: argparse.Namespace,
        net: Net,
        clock: Clock,
        draw: random.Random,
        client: Client,
        address: str,
        cloud_pid: int | None,
    ) -> None:
        self.report = Report()
        self._options = options
        self._net = net
        self._clock = clock
        self._random = draw
        self._client = client
        self._address = address
        self._pid = cloud_pid
        self._progress = Progress(clock)
        self._rss_before = 0  # of the cloud role, without nodes

    async def run(self) -> None:
        """Raises ApiError, OSError, LookupError, TimeoutError."""
        names = [f"hollow-{at:05d}" for at in range(self._options.nodes)]
        async with anyio.create_task_group() as tasks:
            fleet = Fleet(self._net, self._clock, self._random, tasks, self._address, names)
            await fleet.certify(
                await read_ca(self._client), lambda at: self._progress.show(f"certificates {at}/{len(names)}")
            )
            await self._join(fleet)
            if self._options.idle:
                await self._idle(fleet)
            if self._options.pods_per_node:
                await self._pods(fleet, names, tasks)
            if self._options.reconnect:
                await self._reconnect(fleet)
            counters = fleet.counters
            self.report.add("late_leases", counters.late_leases, "lease renewals answered after more than 10 s")
            self.report.add("refused", counters.refused, "requests refused")
            self.report.add("failed_handshakes", fleet.failed_handshakes, "failed handshakes")
            self.report.figures["failures"] = fleet.failures
            use = process_use(os.getpid())
            self.report.add("edgemark_cpu_s", use.cpu_s, "CPU of edgemark itself (s)")
            self.report.add("edgemark_rss_per_node", use.rss / len(names), "memory of edgemark itself per node (bytes)")
            fleet.reconnect = False
            tasks.cancel_scope.cancel()

    def _use(self) -> ProcessUse:
        return process_use(self._pid)

    async def _until(self, what: Callable[[], str], condition: Callable[[], bool]) -> float:
        """Wait and tell how far it is; returns the time at the end. Raises TimeoutError."""
        with anyio.fail_after(_STEP_S):
            while not condition():
                self._progress.show(what())
                await self._clock.sleep(0.02)
        self._progress.done(what())
        return self._clock.monotonic()

    # -- steps ---------------------------------------------------------------------------------------------------

    async def _join(self, fleet: Fleet) -> None:
        count, before, began = len(fleet.nodes), self._use(), self._clock.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.connect)
            ended = await self._until(
                lambda: f"nodes ready {fleet.counters.ready}/{count}", lambda: fleet.counters.ready >= count
            )
        after = self._use()
        self.report.add("join_s", ended - began, f"{count} nodes joined and registered (s)")
        self.report.add(
            "join_cpu_ms", (after.cpu_s - before.cpu_s) * 1000 / count, "CPU of the cloud per joined node (ms)"
        )
        if before.rss:
            self._rss_before = before.rss
            self.report.add("rss_per_node", (after.rss - before.rss) / count, "memory of the cloud per node (bytes)")

    async def _idle(self, fleet: Fleet) -> None:
        await self._clock.sleep(_SETTLED_S)
        count, span = len(fleet.nodes), float(self._options.idle)
        before, traffic, began = self._use(), fleet.traffic(), self._clock.monotonic()
        await self._until(
            lambda: f"idle {self._clock.monotonic() - began:.0f}/{span:.0f} s",
            lambda: self._clock.monotonic() - began >= span,
        )
        after, passed = self._use(), fleet.traffic() - traffic
        minutes = (self._clock.monotonic() - began) / 60
        self.report.add("idle_up", passed.up / count / minutes, "idle: bytes up per node and minute (TCP payload)")
        self.report.add(
            "idle_down", passed.down / count / minutes, "idle: bytes down per node and minute (TCP payload)"
        )
        self.report.add("idle_kbit_up", passed.up * 8 / 1000 / count / minutes / 60, "idle: kbit/s up per node")
        self.report.add(
            "idle_cpu",
            (after.cpu_s - before.cpu_s) / minutes * 1000 / count,
            "idle: CPU of the cloud, s per minute and 1,000 nodes",
        )
        if after.rss:
            self.report.add("rss", after.rss, "memory of the cloud (bytes)")
            idle = (after.rss - self._rss_before) / count
            self.report.add("rss_per_idle_node", idle, "idle: memory of the cloud per node (bytes)")

    async def _pods(self, fleet: Fleet, names: list[str], tasks: Any) -> None:
        pods = Pods(self._client, self._clock, fleet.counters.started_at)
        await pods.prepare()
        watching = anyio.Event()
        tasks.start_soon(pods.watch, watching.set)
        await watching.wait()
        count = len(names) * self._options.pods_per_node
        before, traffic, received = self._use(), fleet.traffic(), fleet.counters.received
        began = self._clock.monotonic()
        async with anyio.create_task_group() as making:
            making.start_soon(lambda: pods.create(names, self._options.pods_per_node, schedule=self._options.schedule))
            ended = await self._until(
                lambda: f"pods running {len(pods.times.watch)}/{count}",
                lambda: len(pods.times.watch) + pods.failed >= count,
            )
        after, passed = self._use(), fleet.traffic() - traffic
        self.report.lines += ["", *startup_table(pods.times), ""]
        for column, spans in pods.times.spans().items():
            self.report.figures[column] = percentiles(spans)
        self.report.add("pods_s", ended - began, f"{count} pods made, delivered, run and reported (s)")
        self.report.add("pods_failed", pods.failed, "pods that the API refused")
        self.report.add(
            "pods_cpu_ms",
            (after.cpu_s - before.cpu_s) * 1000 / count,
            "CPU of the cloud per pod, API and store included (ms)",
        )
        self.report.add("pod_bytes_down", passed.down / count, "bytes down per pod, its echoes included")
        self.report.add("pod_bytes_up", passed.up / count, "bytes up per pod")
        self.report.add(
            "messages", (fleet.counters.received - received) / (ended - began), "object messages received per second"
        )
        for at in range(self._options.updates):
            await self._update(fleet, pods, str(at), count)
        if self._options.away:
            await self._resume(fleet, pods, names)

    async def _update(self, fleet: Fleet, pods: Pods, value: str, count: int) -> None:
        await self._quiet(fleet)
        before, traffic, applied = self._use(), fleet.traffic(), fleet.counters.applied
        began = self._clock.monotonic()
        async with anyio.create_task_group() as changing:
            changing.start_soon(pods.annotate, value)
            ended = await self._until(
                lambda: f"changes delivered {fleet.counters.applied - applied}/{count}",
                lambda: fleet.counters.applied - applied + pods.failed >= count,
            )
        after, passed = self._use(), fleet.traffic() - traffic
        self.report.add("update_s", ended - began, f"{count} pods changed and delivered (s)")
        self.report.add("update_bytes_down", passed.down / count, "bytes down per change")
        if after.cpu_s > before.cpu_s:
            cpu = (after.cpu_s - before.cpu_s) / count * 1000
            self.report.add("update_cpu_ms", cpu, "CPU of the cloud per change, API and store included (ms)")

    async def _resume(self, fleet: Fleet, pods: Pods, names: list[str]) -> None:
        await self._quiet(fleet)
        await self._recorded()
        fleet.reconnect = False
        fleet.cut_all()
        await self._until(lambda: "links cut", lambda: fleet.counters.ready == 0)
        each = min(self._options.away, self._options.pods_per_node)
        await pods.annotate("away", [f"{name}-{at}" for name in names for at in range(each)])
        count, applied, received = each * len(names), fleet.counters.applied, fleet.counters.received
        began = self._clock.monotonic()
        fleet.reconnect = True
        await fleet.connect()
        ended = await self._until(
            lambda: f"changes resumed {fleet.counters.applied - applied}/{count}",
            lambda: fleet.counters.applied - applied >= count,
        )
        passed = fleet.traffic()
        self.report.add("resume_s", ended - began, f"{len(names)} nodes resumed after {count} changes while away (s)")
        self.report.add(
            "resume_bytes_down", passed.down / len(names), "bytes down per resumed node, handshakes included"
        )
        self.report.add("resume_bytes_up", passed.up / len(names), "bytes up per resumed node, handshakes included")
        self.report.add("resume_objects", fleet.counters.received - received, "objects sent to resume")

    async def _recorded(self) -> None:
        """Wait until the cloud role has written down what the nodes hold, as it does some seconds later."""
        await self._clock.sleep(_RECORDED_S)

    async def _quiet(self, fleet: Fleet) -> None:
        """Wait until nothing comes any more."""
        seen = -1
        with anyio.fail_after(_STEP_S):
            while seen != fleet.counters.received:
                seen = fleet.counters.received
                await self._clock.sleep(0.5)

    async def _reconnect(self, fleet: Fleet) -> None:
        await self._quiet(fleet)
        count, before, began = len(fleet.nodes), self._use(), self._clock.monotonic()
        received = fleet.counters.received
        fleet.cut_all()
        await self._until(lambda: "links cut", lambda: fleet.counters.ready == 0)
        ended = await self._until(
            lambda: f"nodes back {fleet.counters.ready}/{count}", lambda: fleet.counters.ready >= count
        )
        after = self._use()
        self.report.add("reconnect_s", ended - began, f"{count} nodes back after a cut of all links (s)")
        self.report.add(
            "reconnect_cpu_ms",
            (after.cpu_s - before.cpu_s) * 1000 / count,
            "CPU of the cloud per node that came back (ms)",
        )
        self.report.add(
            "reconnect_objects", fleet.counters.received - received, "objects sent again though nothing had changed"
        )
