"""keadm's dealings with what runs pods: whether a runtime answers, images for it, and the end of what a node has left running.

Of other agents' pods in the same runtime none is touched: ours are labelled with the node's name.

Errors  OSError, KeadmError.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cli.keadm import files
from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host

__all__ = ["SOCKETS", "end_supervisors", "find_runtime", "pull_images", "remove_pods", "runtime_problem"]

#: Where container runtimes have their sockets, in the order of preference.
SOCKETS: Final = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/isulad.sock",
    "/run/cri-dockerd.sock",
)
_ALL_S: Final = 120.0
_VERSION_S: Final = 8.0
_CALL_S: Final = 30.0
_GRACE_S: Final = 2
_ANSWER_BYTES: Final = 64 << 20


def find_runtime(host: Host, given: str, kind: str) -> str:
    """The socket that is asked for, else one that is there, as unix://…; "" if none is. ``kind`` is "docker", "remote" or "". Raises
    KeadmError."""
    if given:
        path = given.removeprefix("unix://")
        if path.startswith("/") and not host.path(path).is_socket():
            raise KeadmError(
                f"--remote-runtime-endpoint {given}: there is no such socket; is the runtime installed and started?"
            )
        return given if "://" in given else f"unix://{given}"
    wanted = ("/run/cri-dockerd.sock", *SOCKETS) if kind == "docker" else SOCKETS
    found = next((one for one in wanted if host.path(one).is_socket()), "")
    return f"unix://{found}" if found else ""


def pull_images(host: Host, endpoint: str, names: Iterable[str], said: Callable[[str], None]) -> None:
    """Have the runtime pull images, one after another; ``said`` hears of each. Raises KeadmError at the first that cannot be had."""
    anyio.run(_pull_images, f"unix://{host.path(endpoint.removeprefix('unix://'))}", list(names), said)


async def _pull_images(endpoint: str, names: Sequence[str], said: Callable[[str], None]) -> None:
    from edgesite.edge.edged.cri.runtime import CriRuntime
    from edgesite.edge.edged.imagenames import InvalidImageName, normalized
    from edgesite.edge.edged.runtime import RuntimeFault

    runtime = CriRuntime(endpoint, "", request_timeout_s=_CALL_S)
    started = anyio.Event()
    failure = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run, started.set)
        await started.wait()
        for name in names:
            said(f"Pulling {name} ...")
            try:
                await runtime.pull_image(normalized(name))
            except (RuntimeFault, InvalidImageName) as exc:
                failure = f"pull Images failed: {name}: {exc}"
                break
            said(f"Successfully pulled {name}")
        tasks.cancel_scope.cancel()
    if failure:
        raise KeadmError(failure)


def runtime_problem(host: Host, endpoint: str) -> str:
    """Why the container runtime behind this socket cannot be used; "" if it answers, or if there is no socket here to ask."""
    path = endpoint.removeprefix("unix://")
    return anyio.run(_runtime_problem, f"unix://{host.path(path)}") if path.startswith("/") else ""


async def _runtime_problem(endpoint: str) -> str:
    from edgesite.edge.edged.cri.runtime import CriRuntime
    from edgesite.edge.edged.runtime import RuntimeFault

    runtime = CriRuntime(endpoint, "", request_timeout_s=_VERSION_S)
    started = anyio.Event()
    problem = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run, started.set)
        await started.wait()
        try:
            with anyio.fail_after(_VERSION_S):
                await runtime.version()
        except (RuntimeFault, TimeoutError) as exc:
            problem = str(exc) or "no answer in time"
        tasks.cancel_scope.cancel()
    return problem


def remove_pods(host: Host, endpoint: str, node: str) -> None:
    """Stop and remove the pods of this node in the runtime; without a runtime there are none. Raises KeadmError, OSError."""
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/") or not host.path(path).is_socket() or not node:
        return
    anyio.run(_remove_pods, f"unix://{host.path(path)}", node)


async def _remove_pods(endpoint: str, node: str) -> None:
    from edgesite.edge.edged.adoption import LABEL_NODE
    from edgesite.edge.edged.cri.runtime import CriRuntime
    from edgesite.edge.edged.runtime import RuntimeFault

    runtime = CriRuntime(endpoint, "", request_timeout_s=_CALL_S)
    started = anyio.Event()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run, started.set)
            await started.wait()
            with anyio.fail_after(_ALL_S):
                for one in await runtime.list_sandboxes({LABEL_NODE: node}):
                    await runtime.stop_sandbox(one.id)
                    await runtime.remove_sandbox(one.id)
            tasks.cancel_scope.cancel()
    except* RuntimeFault as group:
        raise KeadmError(str(group.exceptions[0])) from None


def end_supervisors(host: Host) -> None:
    """Stop all host processes that run as containers; their supervisor ends by itself. Raises OSError."""
    place = host.path(f"{files.STATE}/process/supervisor.sock")
    if not place.is_socket():
        return
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError), _Supervisor(place) as supervisor:
        for container in supervisor.ask(op="states").get("states", {}):
            supervisor.ask(op="stop", id=container, grace_s=_GRACE_S)


class _Supervisor:
    """A connection to the supervisor of `edgesite.edge.edged.process`, one question at a time."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CALL_S)
        self._socket.connect(str(place))
        self._file = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> _Supervisor:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Raises OSError."""
        self._number += 1
        self._socket.sendall(json.dumps({"n": self._number, **question}).encode() + b"\n")
        while line := self._file.readline(_ANSWER_BYTES):
            answer = json.loads(line)
            if isinstance(answer, dict) and answer.get("n") == self._number:
                return answer
        raise ConnectionResetError("the supervisor of host processes has closed the connection")
