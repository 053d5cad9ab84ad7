"""Devices on whole roles: a cloud and an edge apart, over TLS, 1,000 devices of 10 properties on the edge's embedded broker.

python -m benchmarks.devicesite [--devices 1000] [--seconds 60]

memory     what the devices add to the edge's resident memory, as they have come, all reported, and after a start
uplink     what the edge sends to the cloud while every device reports all properties each second (three of them change each time): TCP
           payload, TLS included, counted by a relay in between
wish       a desired value written to the API to the delta on MQTT
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks import rig
from benchmarks.apart import Apart
from benchmarks.devices import device, model

_API: Final = "/apis/devices.kubeedge.io/v1beta1/namespaces/default"
_CHANGING: Final = 3
_WISHES: Final = 200


class Relay:
    """Passes connections on and counts what goes up."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.up = self.down = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._socket.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            for one, other, is_up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(one, other, is_up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_up:
                    self.up += len(data)
                else:
                    self.down += len(data)
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            one.close()


class Roles(Apart):
    """The edge reaches the hub through a relay, and has an MQTT broker of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.relay = Relay(self._ports[0])
        self.mqtt_port = rig.free_port()

    def edge_arguments(self, token: str = "") -> tuple[str, ...]:
        made = list(super().edge_arguments(token))
        made[made.index("--hub-port") + 1] = str(self.relay.port)
        bus = "modules.eventBus"
        broker = f"{bus}.mqttServerInternal=tcp://127.0.0.1:{self.mqtt_port}"
        return (*made, "--set", f"{bus}.mqttMode=0", "--set", broker)


class Clients:
    """All devices' MQTT in one client."""

    def __init__(self, port: int) -> None:
        self.deltas: dict[str, tuple[float, dict[str, str]]] = {}
        self.results = 0
        self._news = threading.Condition()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._heard
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("$hw/events/device/+/twin/update/delta")
        self.client.subscribe("$hw/events/device/+/twin/update/result")
        self.client.loop_start()

    def _heard(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        now = time.perf_counter()
        with self._news:
            if message.topic.endswith("/result"):
                self.results += 1
            else:
                self.deltas[message.topic.split("/")[3]] = (now, json.loads(message.payload)["delta"])
            self._news.notify_all()

    def report(self, name: str, values: dict[str, int]) -> None:
        twin = {prop: {"actual": {"value": str(value)}, "metadata": {"type": "int"}} for prop, value in values.items()}
        text = json.dumps({"event_id": "", "timestamp": int(time.time() * 1000), "twin": twin})
        self.client.publish(f"$hw/events/device/{name}/twin/update", text)

    def wait(self, condition: Any, timeout_s: float = 60.0) -> None:
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                raise rig.BenchmarkFailed("MQTT fell silent")


def _names(count: int) -> list[str]:
    return [f"machine-{number:04d}" for number in range(count)]


def _create(api: rig.Api, count: int) -> None:
    for path, obj in [("devicemodels", model()), *(("devices", device(number)) for number in range(count))]:
        obj["metadata"] = {
            key: value for key, value in obj["metadata"].items() if key not in ("uid", "resourceVersion")
        }
        if path == "devices":
            obj["spec"]["nodeName"] = "node1"
        api.call("POST", f"{_API}/{path}", obj)


def uplink(roles: Roles, clients: Clients, count: int, seconds: int) -> None:
    names = _names(count)
    draw = random.Random(7)
    values = {name: {f"p{n}": 7 for n in range(10)} for name in names}
    for name in names:
        clients.report(name, values[name])
    clients.wait(lambda: clients.results >= count)
    time.sleep(60)  # all of them have to go up once
    before, begun = roles.relay.up, time.perf_counter()
    for second in range(seconds):
        for name in names:
            for n in range(_CHANGING):
                values[name][f"p{n}"] += draw.choice((-1, 1))
            clients.report(name, values[name])
        time.sleep(max(0.0, begun + second + 1 - time.perf_counter()))
    took = time.perf_counter() - begun
    kbit = (roles.relay.up - before) * 8 / took / 1000
    rig.line(f"uplink, {count} devices reporting each second ({took:.0f} s)", f"{kbit:.1f} kbit/s", "< 20 kbit/s")


def wishes(api: rig.Api, clients: Clients, count: int) -> None:
    names, took = _names(count), []
    for number in range(_WISHES):
        name, value = names[number * 37 % count], str(1000 + number)
        clients.deltas.pop(name, None)
        obj = api.call("GET", f"{_API}/devices/{name}")
        obj["spec"]["properties"][0]["desired"]["value"] = value
        begun = time.perf_counter()
        api.call("PUT", f"{_API}/devices/{name}", obj)
        clients.wait(lambda name=name, value=value: clients.deltas.get(name, (0, {}))[1].get("p0") == value, 10)
        took.append((clients.deltas[name][0] - begun) * 1000)
    took.sort()
    rig.line(f"wish in the API to delta on MQTT, {_WISHES} of them, p50", f"{statistics.median(took):.1f} ms")
    rig.line("  p99", f"{took[int(len(took) * 0.99) - 1]:.1f} ms", "< 50 ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    print(rig.conditions())
    with rig.folder() as folder:
        roles = Roles(folder)
        with roles.cloud() as cloud:
            cloud.wait_line("ready after")
            with roles.edge(roles.token()) as edge, roles.api() as api:
                edge.wait_line("node=node1 is registered")
                time.sleep(5)
                empty = rig.usage(edge.pid).rss
                clients = Clients(roles.mqtt_port)
                _create(api, arguments.devices)
                clients.wait(lambda: len(clients.deltas) >= arguments.devices, 120)
                time.sleep(3)
                rig.line(
                    "memory that devices add, as they have come", f"{(rig.usage(edge.pid).rss - empty) / 2**20:.1f} MiB"
                )
                wishes(api, clients, arguments.devices)
                uplink(roles, clients, arguments.devices, arguments.seconds)
                rig.line("memory, all having reported", f"{(rig.usage(edge.pid).rss - empty) / 2**20:.1f} MiB")
                clients.client.loop_stop()
            with roles.edge("") as edge:
                edge.wait_line("connected to the cloud")
                time.sleep(10)
                rig.line("memory after a start", f"{(rig.usage(edge.pid).rss - empty) / 2**20:.1f} MiB", "< 15 MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
