"""The API on an edge node (MetaServer): reads from what is kept there, watches, memory, and an hour over a link that fails.

    python -m benchmarks.metaserver [--seconds 5] [--hour SECONDS]

Cloud and edge are processes of their own. Reads are measured with the cloud stopped, so that all of it is the edge's work; CPU is user and system
seconds of the edge's process. ``--hour``: virtual seconds of 20 changes a second over a link that is cut for 10 s every 30 s (600 if not
given; 0 leaves it out).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import rig
from benchmarks.apart import Apart

OBJECTS = 1000
WATCHES = 200
BODY = {"x": "y" * 1800}
PATH = "/api/v1/namespaces/default/configmaps"


class WithMetaServer(Apart):
    """Both roles; the edge with MetaServer on a port of its own, or without."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        super().__init__(folder)
        self.port = rig.free_port()
        self._enabled = enabled

    def cloud_arguments(self) -> tuple[str, ...]:
        return (*super().cloud_arguments(), "--set", "modules.dynamicController.enable=true")

    def edge_arguments(self, token: str = "") -> tuple[str, ...]:
        word = "modules.metaManager.metaServer"
        settings = (f"{word}.enable={str(self._enabled).lower()}", f"{word}.server=127.0.0.1:{self.port}")
        return (*super().edge_arguments(token), *(part for one in settings for part in ("--set", one)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of reads of one kind")
    parser.add_argument("--hour", type=float, default=600.0, help="virtual seconds over a failing link")
    options = parser.parse_args()
    with rig.folder() as folder:
        without = resident(folder / "without")
        _measured(folder / "with", options.seconds, without)
    return _hour(options.hour) if options.hour else 0


def resident(folder: Path) -> int:
    """Bytes of the edge role without MetaServer."""
    folder.mkdir()
    apart = WithMetaServer(folder, enabled=False)
    with apart.cloud() as cloud:
        cloud.wait_line("ready after")
        with apart.edge(apart.token()) as edge:
            edge.wait_line("node=node1 is registered")
            time.sleep(3)
            return rig.usage(edge.pid).rss


def _measured(folder: Path, seconds: float, without: int) -> None:
    folder.mkdir()
    apart = WithMetaServer(folder, enabled=True)
    with apart.cloud() as cloud:
        cloud.wait_line("ready after")
        with apart.edge(apart.token()) as edge:
            edge.wait_line("node=node1 is registered")
            time.sleep(3)
            idle = rig.usage(edge.pid).rss
            rig.line("MetaServer idle, resident", f"{(idle - without) / 1e6:.1f} MB more", "<= 6 MB")
            with apart.api() as api:
                for n in range(OBJECTS):
                    api.call("POST", PATH, {"metadata": {"name": f"c{n}"}, "data": BODY})
            connection = http.client.HTTPConnection("127.0.0.1", apart.port)
            listed = ask(connection, PATH)
            assert len(listed["items"]) >= OBJECTS, len(listed["items"])
            time.sleep(6)  # it is written down, and what it took given back
            rig.line(
                "and after a list of 1,000 (2 MB)",
                f"{(rig.usage(edge.pid).rss - without) / 1e6:.1f} MB more",
                "<= 6 MB",
            )
            most = _most_resident(edge.pid, lambda: [ask(connection, PATH) for _ in range(3)])
            rig.line("at most while three of these run", f"{(most - without) / 1e6:.1f} MB more")
            time.sleep(6)
            rig.line("and 6 s later", f"{(rig.usage(edge.pid).rss - without) / 1e6:.1f} MB more", "<= 6 MB")
            _watches(apart, edge.pid, listed["metadata"]["resourceVersion"])
            cloud.stop()
            while "x-edgesite-served-from" not in headers_of(connection, f"{PATH}/c1"):
                time.sleep(0.2)
            _reads(connection, edge.pid, seconds)
            connection.close()


def _most_resident(pid: int, act: Callable[[], object]) -> int:
    """Bytes, looked at every 2 ms."""
    done, most = threading.Event(), 0

    def look() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        act()
    finally:
        done.set()
        looker.join()
    return most


def ask(connection: http.client.HTTPConnection, path: str) -> dict:  # type: ignore[type-arg]
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())  # type: ignore[no-any-return]


def headers_of(connection: http.client.HTTPConnection, path: str) -> dict[str, str]:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return {name.lower(): value for name, value in answer.getheaders()}


def _watches(apart: WithMetaServer, pid: int, since: str) -> None:
    sockets: list[socket.socket] = []
    before = 0
    for at in range(WATCHES + 1):
        if at == 1:  # the first one pays for what all share
            time.sleep(1)
            before = rig.usage(pid).rss
        one = socket.create_connection(("127.0.0.1", apart.port))
        one.sendall(f"GET {PATH}?watch=true&resourceVersion={since} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        one.recv(4096)
        sockets.append(one)
    time.sleep(2)
    open_ = rig.usage(pid)
    rig.line(f"{WATCHES} watches, resident", f"{(open_.rss - before) / 1e6:.2f} MB", "< 2 MB")
    changes = 100
    reader = threading.Thread(target=_drain, args=(sockets, changes))
    reader.start()
    with apart.api() as api:
        for n in range(changes):
            api.call("PUT", f"{PATH}/c{n}", {"metadata": {"name": f"c{n}"}, "data": {**BODY, "n": "1"}})
    reader.join()
    spent = rig.usage(pid).cpu_s - open_.cpu_s
    rig.line(
        f"an event to {WATCHES} watchers, CPU a watcher", f"{spent / changes / WATCHES * 1e6:.1f} us", "one encoding"
    )
    for one in sockets:
        one.close()


def _drain(sockets: list[socket.socket], changes: int) -> None:
    for one in sockets:
        one.settimeout(30)
        seen, rest = 0, b""
        while seen < changes:
            rest += one.recv(1 << 16)
            *lines, rest = rest.split(b"\n")
            seen += sum(line.startswith(b'{"type"') for line in lines)


def _reads(connection: http.client.HTTPConnection, pid: int, seconds: float) -> None:
    for what, objects in (("GET from the node's store", OBJECTS), ("GET of 10 objects again and again", 10)):
        times = []
        before, began = rig.usage(pid).cpu_s, time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            headers_of(connection, f"{PATH}/c{len(times) % objects}")
            times.append(time.perf_counter() - start)
        cpu = rig.usage(pid).cpu_s - before
        times.sort()
        rig.line(f"{what}, p99", f"{times[int(len(times) * 0.99)] * 1e3:.2f} ms", "< 3 ms")
        rig.line("the same, for each second of one core", f"{len(times) / cpu:,.0f}", ">= 2,000")
    before, lists = rig.usage(pid).cpu_s, []
    for _ in range(20):
        start = time.perf_counter()
        ask(connection, PATH)
        lists.append(time.perf_counter() - start)
    cpu = (rig.usage(pid).cpu_s - before) / len(lists)
    lists.sort()
    rig.line(
        "LIST of 1,000 (2 MB), CPU / median to the decoded list",
        f"{cpu * 1e3:.1f} / {lists[10] * 1e3:.1f} ms",
        "< 15 ms",
    )


def _hour(seconds: float) -> int:
    from edgesite.testing.simulator.world import run
    from edgesite.testing.simulator.worlds.metaserver import replay

    outcome = run(replay(seconds), 1)
    if outcome.failure is not None:
        print(outcome.failure)
        return 1
    seen, cuts = outcome.counts.get("events seen", 0), outcome.counts.get("cuts", 0)
    rig.line(
        f"{seconds:.0f} s of 20 events/s over {cuts} cuts: seen once, in order",
        f"{seen:,} of {int(seconds * 20):,}",
        "all",
    )
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    raise SystemExit(main())
