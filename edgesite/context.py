"""What the host hands to a module: its only way to clocks, random numbers, sockets, disks, threads and other modules.

A module keeps no state outside the objects that it makes in ``run`` and reaches the world through its `Context` alone. So
one process can hold a cloud role and many edge roles, and the simulator can run all of them under virtual time.

Units   Times are seconds (float, ``*_s``) unless the name says ``*_ms``; wall-clock times count from the Unix epoch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    import logging
    import random
    import ssl
    from pathlib import Path

    import apsw
    from prometheus_client import CollectorRegistry

    from edgesite.hookspecs import Hooks
    from edgesite.wire.message import Message

__all__ = [
    "Bus",
    "Clock",
    "Context",
    "Disk",
    "FolderWatch",
    "Folders",
    "Health",
    "Inbox",
    "Listener",
    "Module",
    "Net",
    "NodeConnector",
    "NodeStream",
    "Revisions",
    "Role",
    "Section",
    "Services",
    "Settings",
    "Threads",
    "Worker",
]

T = TypeVar("T")
P = TypeVar("P", bound="asyncio.BaseProtocol")
D = TypeVar("D", bound="asyncio.DatagramProtocol")
Role = Literal["cloud", "edge"]


class Clock(Protocol):
    """Time. Deadlines may also be made with anyio's cancel scopes: these follow the same clock."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; comparable within one process only."""
        ...

    def time(self) -> float:
        """Seconds since the Unix epoch; may jump."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Listener(Protocol):
    """A listening address. ``address`` is what it is bound to, with the port that the system chose."""

    address: str

    async def close(self) -> None:
        """Stop accepting and close; idempotent."""
        ...


class Net(Protocol):
    """Sockets. An address is ``host:port``, ``[v6]:port``, ``unix:///path``, or ``mem:name`` for another role in this process.

    Protocols are asyncio protocols, driven by a raw transport; ``edgesite.net`` builds HTTP and WebSocket on them.
    """

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], address: str, *, tls: ssl.SSLContext | None = None
    ) -> Listener:
        """Serve each connection with a new protocol. Raises OSError."""
        ...

    async def connect(
        self,
        factory: Callable[[], P],
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Connect. The caller sets the deadline (``anyio.fail_after``). Raises OSError (ssl errors are OSErrors)."""
        ...

    async def datagrams(
        self, factory: Callable[[], D], *, local: str = "", remote: str = ""
    ) -> tuple[asyncio.DatagramTransport, D]:
        """Open a UDP socket, bound to ``local`` (``host:port``) or connected to ``remote``. Raises OSError."""
        ...


class Worker(Protocol):
    """One thread that runs what it is given in order. The simulator runs it on the loop, in the same order."""

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Queue a call; the future may be awaited or given callbacks, which run on the loop."""
        ...

    async def close(self) -> None:
        """Run what is queued, then end the thread."""
        ...


class Threads(Protocol):
    """Blocking calls off the loop."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run one blocking call in a shared small pool."""
        ...

    def worker(self, name: str) -> Worker: ...


class Disk(Protocol):
    """SQLite files. Under the simulator these live on a disk that loses what was not synced."""

    def connect(self, path: Path) -> apsw.Connection:
        """Open or create a database (WAL, ``synchronous=FULL``, foreign keys on). Blocking: call in a worker. Raises apsw.Error."""
        ...

    def set_aside(self, path: Path) -> Path:
        """Rename a corrupt database and its companions; return the new path, which is free before. Blocking. Raises OSError."""
        ...


class FolderWatch(Protocol):
    """Folders of this host that one party looks at; which of them changed is not told: look at all."""

    def add(self, folder: Path) -> bool:
        """Watch one more; True if it was not watched yet, and so may have changed unnoticed. Raises OSError."""
        ...

    async def changed(self) -> None:
        """Wait until something may have come into one of them, or gone from there, since the last call."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Folders(Protocol):
    """Tells of what other programs leave in folders of this host."""

    def watch(self) -> FolderWatch: ...


class Inbox(Protocol):
    """The queue of one module on the bus; bounded: senders wait when it is full."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    async def receive(self) -> Message: ...

    def close(self) -> None: ...


class Bus(Protocol):
    """Hub messages between modules of one role, routed by module name or group, as KubeEdge's Beehive does.

    Known groups at the edge: hub, meta, edged, twin, bus, edgestream. A plugin may add any other.
    """

    def join(self, module: str, group: str, *, size: int = 1024) -> Inbox:
        """Receive what is sent to ``module`` or to ``group``; leave with ``Inbox.close``."""
        ...

    async def send(self, module: str, message: Message) -> None:
        """Deliver to one module. Raises LookupError if no such module has joined."""
        ...

    async def send_group(self, group: str, message: Message) -> None:
        """Deliver a copy to each module of the group; none is fine."""
        ...

    async def call(self, module: str, message: Message, *, timeout_s: float = 30.0) -> Message:
        """Send and wait for the answer whose parent is this message. Raises TimeoutError, LookupError."""
        ...

    def respond(self, message: Message) -> bool:
        """Hand an answer to whoever waits for its parent; False if nobody does."""
        ...


class NodeStream(Protocol):
    """The answer of a node's kubelet API: a status, headers, and a body that may go on for ever (``logs -f``)."""

    status: int
    headers: Mapping[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None: ...

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Give the connection to another protocol after status 101; what the node has sent already follows at once. To be
        called without awaiting anything after `NodeConnector.open`. Raises OSError."""
        ...


class NodeConnector(Protocol):
    """Reaches the kubelet API of a node, by node name, over whatever link there is. Provided by a cloud module."""

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> NodeStream:
        """``target`` is path and query, e.g. "/containerLogs/default/web-0/web?follow=true"; ``headers`` has each value as a line
        of its own, and may ask for an upgrade. Raises ApiError when out of reach."""
        ...


class Revisions(Protocol):
    """The revisions of the embedded API; a service of module apiserver."""

    def advance(self, beyond: int) -> bool:
        """Let the next revision be above this one, which clients have seen; False, without effect, if that is too far."""
        ...


class Section(Mapping[str, Any]):
    """A frozen piece of validated configuration: members by attribute or by key, nested ones are sections too."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", {name: _freeze(value) for name, value in values.items()})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no setting {name!r}; there are {', '.join(sorted(self._values))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("configuration is frozen")

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({', '.join(self._values)})"

    def plain(self) -> dict[str, Any]:
        """The same as nested dicts and lists."""
        return {name: _thaw(value) for name, value in self._values.items()}


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping) and not isinstance(value, Section):
        return Section(value)
    if isinstance(value, list | tuple):
        return tuple(_freeze(one) for one in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, Section):
        return value.plain()
    if isinstance(value, tuple):
        return [_thaw(one) for one in value]
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of a whole process, validated. A role that does not run here is None."""

    api: Section | None = None
    cloud: Section | None = None
    edges: Sequence[Section] = ()  #: one per edge role in this process

    def of(self, role: Role) -> Section | None:
        """The cloud's section, or the first edge's."""
        if role == "cloud":
            return self.cloud
        return self.edges[0] if self.edges else None


class Health(Protocol):
    """What /healthz, /livez and /readyz of this role report."""

    def add_check(self, name: str, check: Callable[[], str | None], *, live: bool = False) -> None:
        """``check`` returns None when well, else why not. ``live`` makes it part of /livez too."""
        ...

    def report(self, kind: Literal["live", "ready"]) -> list[tuple[str, str | None]]:
        """Each check of /livez or of /readyz, with None when well, else why not. Modules are among them."""
        ...


class Services(Protocol):
    """Typed interfaces that modules of one role offer to each other. One provider each; withdrawn when it stops."""

    def provide(self, interface: type[T], implementation: T) -> None: ...

    def withdraw(self, interface: type[T]) -> None: ...

    def find(self, interface: type[T]) -> T | None: ...

    async def replaced(self, interface: type[T], implementation: T | None) -> None:
        """Wait as long as this very implementation (None: none at all) is what `find` gives."""
        ...

    def get(self, interface: type[T]) -> T:
        """Raises LookupError naming the interface."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a module may use. One is made for each module of each role."""

    role: Role
    module: str
    node_name: str  #: of this edge role; "" in the cloud role
    config: Section  #: this module's section (`Module.section`)
    settings: Section  #: the whole configuration of this role
    data_dir: Path  #: of this role; exists, mode 0700
    clock: Clock
    random: random.Random
    net: Net
    threads: Threads
    disk: Disk
    bus: Bus
    services: Services
    health: Health
    metrics: CollectorRegistry
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    hooks: Hooks
    ready: Callable[[], None]  #: call once, as soon as the module can serve
    site: Mapping[str, Any] = field(
        default_factory=dict
    )  #: facts of the process: "version", "embedded_api", "single_process"
    folders: Folders | None = None  #: None: no other program leaves anything for this role, as in the simulator


class Module(Protocol):
    """A part that runs. Making one has no side effects: everything happens in ``run``.

    The host makes one instance per role instance, starts it when what it needs is ready, restarts it with backoff when it
    raises, and cancels it to stop.
    """

    name: ClassVar[str]  #: "edgehub"; also its logger
    roles: ClassVar[frozenset[str]]  #: {"cloud"}, {"edge"} or both
    needs: ClassVar[frozenset[str]]  #: modules of the same role that must be ready first
    # Optional: ``stands_for: ClassVar[frozenset[str]]``, further names by which others may need this module.
    # Optional, both or neither: ``reloads: ClassVar[frozenset[str]]``, dotted members of its section, each with all that is below it, that a
    # running module takes over when the configuration is read again (SIGHUP), and ``def reload(self, config: Section) -> None``. It is called
    # on the loop then, whether anything has changed or not (files that the settings name may have), with the section as it was at the start
    # but for these members; it does nothing where ``run`` has not come so far. Raises ValueError: the former settings hold on.
    section: ClassVar[str]  #: dotted path of its settings in the role's configuration ("modules.edgeHub"), or ""

    def enabled(self, settings: Section) -> bool:
        """Whether the role's configuration wants this module at all."""
        ...

    def run(self, ctx: Context) -> Awaitable[None]:
        """Serve until cancelled. Raises whatever goes wrong: the host logs, counts and restarts."""
        ...
