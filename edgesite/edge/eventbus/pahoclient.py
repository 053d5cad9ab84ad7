"""The two clients of an external broker, as KubeEdge has them: one subscribes, one publishes. Imports paho-mqtt: only where a broker answers.

All methods but `hand` block, and belong to one worker thread; `hand` belongs to the event loop. So nothing of paho's runs in two threads:

    session.connect(topics)            until both are connected
    batch = session.pump(wait_s)       read and write for a while; what came is acknowledged by the next `pump`
    session.hand(command)              from the loop: subscribe, unsubscribe, publish; wakes `pump`

Publications are QoS 1: those that were not acknowledged when the connection broke are sent again by the next one.

Units   Seconds.
Errors  OSError: no connection, or it broke; then `connect` again. Whatever paho raises for what a broker sends is one, too.
Bounds  `INFLIGHT` publications without acknowledgement; commands wait in `Outbox`, publications of `BATCH` are read at a time.
Source  KubeEdge v1.12.7, edge/pkg/eventbus/mqtt/client.go (two clean sessions, QoS 1, keep-alive of its paho).
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgesite.edge.eventbus.outbox import Command, Outbox

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Batch", "ClientOptions", "PahoSession"]

INFLIGHT: Final = 200
BATCH: Final = 256
CONNECT_S: Final = 10.0
KEEP_ALIVE_S: Final = 60
_IDLE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where the broker is, and who we are."""

    host: str
    port: int
    sub_id: str
    pub_id: str
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    keep_sessions: bool = False  #: the broker keeps what comes for us while we are away


@dataclass(slots=True)
class Batch:
    """What one `PahoSession.pump` brought."""

    publications: list[tuple[str, bytes, bool]] = field(default_factory=list)  #: topic, payload, retained
    to_ack: list[tuple[int, int]] = field(default_factory=list)  #: id and QoS
    unreadable: int = 0  #: publications whose topic is no UTF-8
    refused: list[str] = field(default_factory=list)  #: topics that the broker does not let us subscribe to


class PahoSession:
    """See the module docstring."""

    def __init__(self, options: ClientOptions, outbox: Outbox, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._outbox = outbox
        self._batch = Batch()
        self._handed = Batch()  # over: to be acknowledged
        self._asked: dict[int, list[str]] = {}  # topics of a SUBSCRIBE by its id
        self._failed = ""
        self._inflight = 0
        self._broken: OSError | None = None  # the next `pump` says it: what came before that is handed over first
        self._stopping = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._sub = self._make(options.sub_id, not options.keep_sessions)
        self._pub = self._make(options.pub_id, True)
        self._sub.on_message = self._on_message
        self._sub.on_subscribe = self._on_subscribe
        self._pub.on_publish = self._on_publish

    def _make(self, client_id: str, clean: bool) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=clean,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(INFLIGHT)
        client.connect_timeout = CONNECT_S / 2
        if self._options.username:
            client.username_pw_set(self._options.username, self._options.password or None)
        if self._options.tls is not None:
            client.tls_set_context(self._options.tls)
        client.on_connect = self._on_connect
        return client

    # Callbacks, in the worker's thread

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self._failed = str(reason)

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        try:
            self._batch.publications.append((message.topic, bytes(message.payload), message.retain))
        except UnicodeDecodeError:
            self._batch.unreadable += 1  # acknowledged all the same: it would come again with each connection
        if message.qos:
            self._batch.to_ack.append((message.mid, message.qos))

    def _on_subscribe(self, client: paho.Client, _: Any, mid: int, reasons: list[Any], __: Any) -> None:
        topics = self._asked.pop(mid, [])
        self._batch.refused += [topic for topic, reason in zip(topics, reasons, strict=False) if reason.is_failure]

    def _on_publish(self, client: paho.Client, _: Any, mid: int, reason: Any, __: Any) -> None:
        self._inflight -= 1

    # The loop's side

    def hand(self, command: Command) -> None:
        """Queue a command and wake `pump`."""
        if self._outbox.put(command):
            self.wake()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it is over
            self._waker.send(b"\0")

    def stop(self) -> None:
        """End `connect` and `pump` soon: they raise OSError from now on."""
        self._stopping = True
        self.wake()

    # The worker's side

    def connect(self, topics: list[str]) -> None:
        """Connect both, and subscribe. Raises OSError."""
        self._failed = ""
        self._broken = None
        self._asked.clear()
        self._batch, self._handed = Batch(), Batch()
        options = self._options
        until = self._clock.monotonic() + CONNECT_S
        try:
            for client in (self._sub, self._pub):
                _check(client.connect(options.host, options.port, KEEP_ALIVE_S))
                while not client.is_connected():
                    self._turn(max(0.0, until - self._clock.monotonic()))
                    if self._clock.monotonic() > until:
                        raise TimeoutError("the MQTT broker does not answer CONNECT")
            self._subscribe(topics)
        except (ValueError, ssl.SSLError) as exc:
            self.leave()
            raise ConnectionError(f"no connection to the MQTT broker: {exc}") from exc
        except OSError as exc:
            self.leave()
            if self._failed:
                raise ConnectionRefusedError(f"the MQTT broker refuses: {self._failed}") from exc
            raise

    def pump(self, wait_s: float = _IDLE_S) -> Batch:
        """Acknowledge what the last one brought; write and read; return as soon as something has come. Raises OSError."""
        if self._broken is not None:
            raise self._broken
        try:
            for mid, qos in self._handed.to_ack:
                self._sub.ack(mid, qos)
            self._handed = Batch()
            self._carry_out()
            self._turn(0.0 if self._batch.publications else wait_s)  # some may have come while we connected
            self._carry_out()
        except OSError as exc:
            self._broken = exc
        except Exception as exc:  # paho reads a broker's nonsense with whatever error comes
            self._broken = ConnectionError(f"the MQTT broker sends what cannot be read: {exc!r}")
        if self._broken is not None and not self._batch.publications:
            raise self._broken
        self._handed, self._batch = self._batch, Batch()
        return self._handed

    def leave(self) -> None:
        """Disconnect; `connect` may follow."""
        for client in (self._sub, self._pub):
            with contextlib.suppress(Exception):
                client.disconnect()
            if (sock := client.socket()) is not None:
                sock.close()

    def close(self) -> None:
        self.leave()
        self._woken.close()
        self._waker.close()

    def _turn(self, wait_s: float) -> None:
        if self._stopping:
            raise ConnectionAbortedError("the connection is given up here")
        poll, by_number = select.poll(), {}
        poll.register(self._woken, select.POLLIN)
        for client in (self._sub, self._pub):
            if (sock := client.socket()) is not None:
                poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
                by_number[sock.fileno()] = client
                if isinstance(sock, ssl.SSLSocket) and sock.pending():
                    wait_s = 0.0
                    _check(client.loop_read())
        for number, events in poll.poll(wait_s * 1000):
            ready = by_number.get(number)
            if ready is None:
                _drain(self._woken)
                continue
            if events & select.POLLOUT:
                _check(ready.loop_write())
            if events & ~select.POLLOUT:
                self._read(ready)
        for client in by_number.values():
            _check(client.loop_misc())

    def _read(self, client: paho.Client) -> None:
        """Read what has come, up to a batch."""
        poll = select.poll()
        sock = client.socket()
        if sock is None:
            return
        poll.register(sock, select.POLLIN)
        while len(self._batch.publications) < BATCH:
            _check(client.loop_read())
            if client.socket() is not sock:
                raise ConnectionResetError("the MQTT broker closed the connection")
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()) and not poll.poll(0):
                return

    def _carry_out(self) -> None:
        while self._inflight < INFLIGHT and (command := self._outbox.take()) is not None:
            if command.operation == "publish":
                self._inflight += 1
                info = self._pub.publish(command.topic, command.payload, qos=1)
                if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
                    self._inflight -= 1
                    _check(info.rc)
            elif command.operation == "subscribe":
                self._subscribe([command.topic])
            else:
                self._sub.unsubscribe(command.topic)

    def _subscribe(self, topics: list[str]) -> None:
        if topics:
            rc, mid = self._sub.subscribe([(topic, 1) for topic in topics])
            _check(rc)
            if mid is not None:
                self._asked[mid] = topics


def _check(rc: int) -> None:
    if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
        raise ConnectionResetError(f"the connection to the MQTT broker is lost: {paho.error_string(MQTTErrorCode(rc))}")


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while sock.recv(4096):
            continue
