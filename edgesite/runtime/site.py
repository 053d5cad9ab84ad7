"""A process with one or both roles: locks the data folder, runs the roles, handles signals, says when the node is Ready.

Errors  DataDirInUse: another process has the data folder. SiteFailed: the process ends, with the reason on its last line.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

import edgesite
from edgesite.context import Section, Settings
from edgesite.runtime.notify import Notifier, Systemd, follow
from edgesite.runtime.plugins import PluginHost
from edgesite.runtime.role import RoleHost, World

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from edgesite.context import Module, Threads
    from edgesite.hookspecs import Hooks
    from edgesite.runtime.reload import Configuration

__all__ = ["DataDirInUse", "EdgePlan", "Plan", "Site", "SiteFailed", "real_world", "run"]

logger = logging.getLogger(__name__)
GRACE_S: Final = 10.0
STILL_S: Final = 60.0  #: that a worker thread may stand still, where systemd does not say how long the process may


class DataDirInUse(RuntimeError):
    """Another edgesite process runs on this data folder."""


class SiteFailed(RuntimeError):
    """The site cannot do what it was started for; the message says why."""


@dataclass(frozen=True, slots=True)
class EdgePlan:
    node_name: str
    data_dir: Path
    settings: Section


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. ``cloud`` is the CloudCore section with the member ``api`` beside its own."""

    data_dir: Path
    cloud: Section | None
    edges: Sequence[EdgePlan]
    api: Section | None

    @property
    def settings(self) -> Settings:
        return Settings(api=self.api, cloud=self.cloud, edges=tuple(one.settings for one in self.edges))

    @property
    def site(self) -> dict[str, Any]:
        """Facts for `Context.site`."""
        return {
            "version": edgesite.__version__,
            "embedded_api": bool(self.api and self.api.enable),
            "single_process": self.cloud is not None and bool(self.edges),
            "data_dir": str(self.data_dir),
        }


class Site:
    """The roles of one process."""

    def __init__(self, plan: Plan, plugins: PluginHost, world: World) -> None:
        self.plan = plan
        modules: Iterable[type[Module]] = plugins.modules(plan.settings)
        self.cloud: RoleHost | None = None
        if plan.cloud is not None:
            cloud_dir = plan.data_dir / "cloud"
            self.cloud = RoleHost("cloud", modules, plan.cloud, world, data_dir=cloud_dir, refuse=plugins.refuse)
        self.edges = [
            RoleHost(
                "edge",
                modules,
                one.settings,
                world,
                data_dir=one.data_dir,
                node_name=one.node_name,
                refuse=plugins.refuse,
            )
            for one in plan.edges
        ]

    @property
    def roles(self) -> list[RoleHost]:
        return [*([self.cloud] if self.cloud else []), *self.edges]

    async def run(self, *, grace_s: float = GRACE_S) -> None:
        """Serve until cancelled; the edge roles stop before the cloud role, so that their last words arrive."""
        stopped = [anyio.Event() for _ in self.edges]
        async with anyio.create_task_group() as tasks:
            if self.cloud:
                tasks.start_soon(self._run_cloud, self.cloud, stopped, grace_s)
            for role, event in zip(self.edges, stopped, strict=True):
                tasks.start_soon(self._run_edge, role, event, grace_s)

    async def _run_edge(self, role: RoleHost, stopped: anyio.Event, grace_s: float) -> None:
        try:
            await role.run(grace_s=grace_s)
        finally:
            stopped.set()

    async def _run_cloud(self, role: RoleHost, edges_stopped: Sequence[anyio.Event], grace_s: float) -> None:
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope(shield=True)

            async def serve() -> None:
                with scope:
                    await role.run(grace_s=grace_s)

            tasks.start_soon(serve)
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.move_on_after(grace_s * 2, shield=True):
                    for event in edges_stopped:
                        await event.wait()
                scope.cancel()


def real_world(hooks: Hooks, threads: Threads, site: Mapping[str, Any]) -> World:
    """This machine. Whoever makes the threads closes them."""
    from edgesite.net.folders import RealFolders
    from edgesite.net.real import RealClock, RealDisk, RealNet

    return World(
        clock=RealClock(),
        random=random.Random(os.urandom(16)),
        net=RealNet(),
        threads=threads,
        disk=RealDisk(),
        hooks=hooks,
        site=site,
        folders=RealFolders(),
    )


def run(
    plan: Plan,
    plugins: PluginHost,
    *,
    beside: Callable[[Site], Coroutine[Any, Any, None]] | None = None,
    configuration: Configuration | None = None,
) -> int:
    """Run a process until a signal ends it; returns the exit code. ``beside`` runs next to the roles (ready line, demo);
    ``configuration`` is read again on SIGHUP.

    Raises DataDirInUse, SiteFailed, OSError.
    """
    from edgesite.net.real import loop_factory

    with _lock(plan.data_dir):
        _check_address(plan.api)
        return anyio.run(
            _main,
            plan,
            plugins,
            beside,
            configuration,
            backend="asyncio",
            backend_options={"loop_factory": loop_factory()},
        )


async def _main(
    plan: Plan,
    plugins: PluginHost,
    beside: Callable[[Site], Coroutine[Any, Any, None]] | None,
    configuration: Configuration | None,
) -> int:
    from edgesite.net.threads import RealThreads
    from edgesite.net.threadwatch import ThreadWatch

    threads = RealThreads()
    world = real_world(plugins, threads, plan.site)
    systemd = Systemd.take(os.environ)
    notifier = Notifier(systemd.address)
    site = Site(plan, plugins, world)
    threads_watch = ThreadWatch(lambda: threads.workers, world.clock.monotonic, systemd.watchdog_s or STILL_S)
    for role in site.roles:
        role.health.add_check("threads", threads_watch.problem, live=True)
    try:
        async with anyio.create_task_group() as signals:
            async with anyio.create_task_group() as tasks:
                signals.start_soon(_follow_signals, tasks.cancel_scope, notifier)
                tasks.start_soon(_follow_hangups, tasks.cancel_scope, notifier, site, threads, configuration)
                tasks.start_soon(follow, site.roles, systemd, notifier, world.clock)
                tasks.start_soon(_settle, site)
                if beside is not None:
                    tasks.start_soon(beside, site)
                tasks.start_soon(site.run)
            signals.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _reason(group) from None
    finally:
        with anyio.move_on_after(GRACE_S, shield=True):
            await threads.close()
        notifier.close()
    return 0


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person should be told: a `SiteFailed` in the group, else the group itself."""
    failed: BaseException = group.subgroup(SiteFailed) or group
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed if isinstance(failed, SiteFailed) else group


async def _follow_signals(scope: anyio.CancelScope, notifier: Notifier) -> None:
    """The first signal stops the site, the second ends the process where it is."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if scope.cancel_called:
                os._exit(1)
            logger.info("stopping on %s; a second signal exits at once", number.name)
            notifier.send(STOPPING=1, STATUS="stopping")
            scope.cancel()


async def _follow_hangups(
    scope: anyio.CancelScope, notifier: Notifier, site: Site, threads: Threads, configuration: Configuration | None
) -> None:
    """SIGHUP reads the configuration again; where a terminal started this process, it says that the terminal is gone."""
    on_terminal = _has_terminal()
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            if on_terminal:
                logger.info("stopping: the terminal was closed")
                scope.cancel()
                return
            notifier.reloading()
            if configuration is not None:
                await configuration.reload(threads, site.roles)
            notifier.send(READY=1)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _settle(site: Site) -> None:
    """Once all is up, what lives for ever leaves the garbage collector's sight."""
    for role in site.roles:
        await role.ready.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _check_address(api: Section | None) -> None:
    """Without its API's address the site cannot serve anybody; a person should hear so at once. Raises SiteFailed."""
    if api is None or not api.enable:
        return
    host, _, port = api.address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former run may linger
        try:
            probe.bind((host, int(port)))
        except OSError as exc:
            raise SiteFailed(
                f"the API cannot listen on {api.address}: {exc.strerror}; give another --api-address"
            ) from None


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirInUse(
                f"{data_dir} is in use by another edgesite process (pid {os.pread(fd, 20, 0).decode().strip() or 'unknown'}); "
                "stop it, or give this one a --data-dir of its own"
            ) from None
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
        sys.stdout.flush()
