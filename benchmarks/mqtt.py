"""What the embedded MQTT broker costs: CPU time a message, beside mosquitto's; memory of the broker and of paho-mqtt.

    python -m benchmarks.mqtt [--messages N]

Each broker runs in a process of its own, and its CPU time alone is counted. Clients write what was encoded before, and count what comes.
Ratios are ours against mosquitto's, which is a program in C.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Kind,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Subscription,
)

PAYLOAD = (
    b'{"event_id":"","timestamp":1700000001000,"twin":{"speed":{"actual":{"value":"38"},"metadata":{"type":"int"}}}}'
)
WINDOW = 200


@dataclass(frozen=True)
class Case:
    name: str
    qos: int
    readers: int
    durable: bool = False


CASES = (
    Case("QoS 0, one reader", 0, 1),
    Case("QoS 0, ten readers", 0, 10),
    Case("QoS 1, one reader", 1, 1),
    Case("QoS 1, one durable reader (on disk before PUBACK)", 1, 1, True),
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=20_000)
    count = parser.parse_args().messages
    for case in CASES:
        ours, theirs = measured(_our_broker, case, count), measured(_mosquitto, case, count)
        deliveries = count * case.readers
        print(
            f"{case.name}: {1e6 * ours[0] / count:.1f} µs of CPU a message, {1e6 * ours[0] / deliveries:.1f} a delivery;"
            f" {count / ours[0]:,.0f} messages per CPU second, {count / ours[1]:,.0f}/s on the clock;"
            f" mosquitto {1e6 * theirs[0] / count:.1f} µs: {ours[0] / theirs[0]:.1f} ×"
        )
    for name, code in MEMORY.items():
        print(f"resident, {name}: {_resident(code) - _resident(BARE):.1f} MiB")
    return 0


# -- brokers ---------------------------------------------------------------------------------------------------------


def _our_broker(folder: Path, port: int) -> tuple[Callable[[], float], Callable[[], None]]:
    """Start; return what tells its CPU time, and what ends it."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, port, far))
    process.start()
    near.recv()

    def spent() -> float:
        near.send("cpu")
        return float(near.recv())

    def end() -> None:
        near.send("end")
        process.join()

    return spent, end


def _serve(folder: Path, port: int, pipe: Connection) -> None:
    from edgesite.edge.eventbus.broker.journal import SqliteJournal
    from edgesite.edge.eventbus.broker.server import BrokerServer
    from edgesite.edge.eventbus.broker.settings import Who
    from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads, loop_factory
    from edgesite.wire.mqtt.broker import Broker
    from edgesite.wire.mqtt.session import Limits

    async def serve() -> None:
        clock, threads = RealClock(), RealThreads()
        journal = SqliteJournal(RealDisk(), folder / "mqtt.db", threads.worker("mqtt"), clock)
        await journal.open()
        broker = Broker(Limits(), random.Random(1).getrandbits, journal=journal)
        async with (
            BrokerServer(broker, Who(), clock=clock, threads=threads, journal=journal) as server,
            anyio.create_task_group() as tasks,
        ):
            await server.listen(RealNet(), f"127.0.0.1:{port}")
            tasks.start_soon(server.run)
            pipe.send("up")
            asyncio.get_running_loop().add_reader(pipe.fileno(), _answer, pipe, tasks.cancel_scope.cancel)
            await anyio.sleep_forever()
        await threads.close()

    anyio.run(serve, backend_options={"loop_factory": loop_factory()})


def _answer(pipe: Connection, end: Callable[[], object]) -> None:
    if pipe.recv() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(used.ru_utime + used.ru_stime)
    else:
        asyncio.get_running_loop().remove_reader(pipe.fileno())
        end()


def _mosquitto(folder: Path, port: int) -> tuple[Callable[[], float], Callable[[], None]]:
    config = folder / "mosquitto.conf"
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "user root",
        "log_dest none",
        "max_queued_messages 0",
    ]
    lines += ["max_inflight_messages 0", "persistence true", f"persistence_location {folder}/"]
    config.write_text("\n".join([*lines, ""]))
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin") or "mosquitto"
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    tick = os.sysconf("SC_CLK_TCK")

    def spent() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / tick

    def end() -> None:
        process.kill()
        process.wait()

    return spent, end


# -- clients ---------------------------------------------------------------------------------------------------------


class _Client:
    """A blocking client of the codec."""

    def __init__(self, port: int, name: str, *, durable: bool = False) -> None:
        self.sock = _connected(port)
        self.decoder = Decoder()
        self.sock.sendall(encode(Connect(name, 4, not durable), 4))
        self.until(Connack)

    def until(self, kind: type) -> None:
        while not any(isinstance(one, kind) for one in self.read()):
            continue

    def read(self) -> list[Packet]:
        return list(self.decoder.feed(self.sock.recv(1 << 18)))

    def subscribe(self, qos: int) -> None:
        self.sock.sendall(encode(Subscribe(1, [Subscription("$hw/events/device/+/twin/+", qos)]), 4))
        self.until(Suback)


def _connected(port: int) -> socket.socket:
    until = time.monotonic() + 10
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def measured(
    start: Callable[[Path, int], tuple[Callable[[], float], Callable[[], None]]], case: Case, count: int
) -> tuple[float, float]:
    """Return CPU seconds of the broker, and seconds on the clock."""
    with tempfile.TemporaryDirectory() as name:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        spent, end = start(Path(name), port)
        try:
            readers = [_Client(port, f"r{n}", durable=case.durable) for n in range(case.readers)]
            for one in readers:
                one.subscribe(case.qos)
            writer = _Client(port, "w")
            _exchange(case, writer, readers, count // 10)
            before, at = spent(), time.perf_counter()
            _exchange(case, writer, readers, count)
            return spent() - before, time.perf_counter() - at
        finally:
            end()


def _exchange(case: Case, writer: _Client, readers: list[_Client], count: int) -> None:
    """Publish ``count``, at most a window ahead of the readers and of the acknowledgements."""
    sent, acked, got = 0, 0 if case.qos else count, dict.fromkeys(readers, 0)
    while min(got.values()) < count or acked < count:
        ahead = min(min(got.values()), acked if case.qos else count) + WINDOW
        if sent < min(ahead, count):
            batch = range(sent, min(ahead, count))
            writer.sock.sendall(
                b"".join(
                    encode(Publish(f"$hw/events/device/d{n % 100}/twin/update", PAYLOAD, case.qos, packet_id=n % 60_000 + 1 if case.qos else 0), 4)
                    for n in batch
                )
            )  # fmt: skip
            sent = batch.stop
        for one in readers:
            if got[one] < sent:
                found = [packet for packet in one.read() if isinstance(packet, Publish)]
                got[one] += len(found)
                if case.qos:
                    one.sock.sendall(b"".join(encode(Ack(Kind.PUBACK, packet.packet_id), 4) for packet in found))
        if case.qos and acked < sent:
            acked += sum(isinstance(packet, Ack) for packet in writer.read())


# -- memory ----------------------------------------------------------------------------------------------------------

BARE = "import asyncio, ssl, anyio, apsw, prometheus_client, edgesite.net.real, edgesite.wire.message"
MEMORY = {
    "the embedded broker, without clients": BARE + ", edgesite.edge.eventbus.internal",
    "the module without a broker (mode 2, nobody at port 1883)": BARE + ", edgesite.edge.eventbus.module",
    "paho-mqtt": BARE + ", paho.mqtt.client",
}


def _resident(code: str) -> float:
    """Resident MiB of a process that ran this, the least of three."""
    told = "import re; print(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", f"{code}\n{told}"], capture_output=True, text=True, check=True)
        found.append(int(done.stdout) / 1024)
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
