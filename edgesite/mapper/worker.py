"""One device and its driver: connect, collect, write what is wanted, watch its health, report what has changed.

Everything that the driver does is called from one task, and each call ends at its deadline. A call that fails leads to the question how the
device is; where there is no answer to that either, the connection is made anew, after `FIRST_S` up to `MOST_S`. A failing property is tried
less and less often and holds up no other.

What is wanted is written once it is known, when it changes, and after each connection; a value that the model or the type does not allow is logged
and not tried before it changes. What was written is read back at once. Unchanged values are reported every `REFRESH_S`.

Units   Seconds, monotonic; ``*_ms`` since the Unix epoch.
Errors  None leaves `run`. `read` and `write` raise DriverError, ConversionError and LookupError.
State   The newest value of each property, in memory.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.lowlevel

from edgesite.mapper.conversion import ConversionError, from_text, to_text
from edgesite.mapper.driver import Device, DeviceState, Driver, DriverError, Host, Property
from edgesite.mapper.points import Point
from edgesite.mapper.reports import Reading

if TYPE_CHECKING:
    from edgesite.mapper.devices import Assignment
    from edgesite.mapper.metrics import Meters
    from edgesite.mapper.reports import Reports

__all__ = ["DeviceWorker", "Make", "Push"]

T = TypeVar("T")
Make = Callable[[Device, Host], Driver]
#: Takes a value for where ``Property.push`` says, at each report cycle; never waits, never raises.
Push = Callable[[Device, Property, str, int], None]
CONNECT_S: Final = 20.0
CALL_S: Final = 10.0
CLOSE_S: Final = 5.0
REQUEST_S: Final = 15.0  #: that somebody waits for a value
REQUESTS: Final = 64
FIRST_S: Final = 1.0
MOST_S: Final = 60.0
REPORT_CHARS: Final = 512  #: what the edge takes as a value; longer ones are pushed and read by REST alone


class _Lost(Exception):
    """The connection has to be made anew."""


class _Request:
    """Somebody else wants the driver to do something."""

    def __init__(self, point: Point, value: str | None) -> None:
        self.point, self.value = point, value
        self.done = anyio.Event()
        self.answer = ""
        self.failure: Exception | None = DriverError("the device is being removed")


class DeviceWorker:
    """See the module docstring. ``push`` gets the values of properties that say where to."""

    def __init__(
        self, assignment: Assignment, make: Make, host: Host, reports: Reports, meters: Meters, push: Push
    ) -> None:
        self.assignment = assignment
        self.state = DeviceState.UNKNOWN
        self.problem = ""  #: why the device cannot be reached; "" if it can
        self.points = {prop.name: Point.of(prop) for prop in assignment.device.properties}
        self._make, self._host, self._reports, self._meters, self._push = make, host, reports, meters, push
        self._driver: Driver | None = None
        self._requests: list[_Request] = []
        self._wake = anyio.Event()
        self._wished = False  # whether what is wanted has changed since it was looked at
        self._health_at = -math.inf
        self._tell_at = math.inf  # when the state is told again
        self._state_told: DeviceState | None = None
        self._log = host.log
        self._scope, self._until = anyio.CancelScope(), math.inf  # of a connection: it ends when a call takes too long
        self._calling = ("connect", CONNECT_S)
        for name, wanted in assignment.desired.items():
            self.points[name].want(wanted)

    def want(self, assignment: Assignment) -> None:
        """Take over what is wanted now; the device itself has not changed."""
        self.assignment = assignment
        for name, point in self.points.items():
            point.want(assignment.desired.get(name, ""))
        self._wished = True
        self._wake.set()

    def refresh(self) -> None:
        """Report everything anew: who takes reports is another one."""
        self._state_told = None
        for point in self.points.values():
            point.reported_at = -math.inf
        self._wake.set()

    async def read(self, name: str) -> tuple[Property, str]:
        """Have the driver read a property. Raises LookupError, DriverError, ConversionError."""
        request = await self._ask(name, None)
        return request.point.prop, request.answer

    async def write(self, name: str, text: str) -> None:
        """Have the driver write a property. Raises LookupError, DriverError, ConversionError."""
        await self._ask(name, text)

    async def _ask(self, name: str, value: str | None) -> _Request:
        if name not in self.points:
            raise LookupError(f"device {self.assignment.device.name} has no property {name}")
        if len(self._requests) >= REQUESTS:
            raise DriverError("too many requests wait for this device")
        request = _Request(self.points[name], value)
        self._requests.append(request)
        self._wake.set()
        try:
            with anyio.fail_after(REQUEST_S):
                await request.done.wait()
        except TimeoutError:
            raise DriverError(f"the device has not answered within {REQUEST_S:g} s") from None
        finally:
            if request in self._requests:
                self._requests.remove(request)
        if request.failure is not None:
            raise request.failure
        return request

    # Life

    async def run(self) -> None:
        """Serve the device until cancelled."""
        wait_s = FIRST_S
        try:
            while True:
                self._scope, self._until = anyio.CancelScope(), math.inf
                why = ""
                with self._scope:
                    try:
                        await self._connect()
                        wait_s = FIRST_S
                        await self._serve()
                    except _Lost as exc:
                        why = str(exc)
                self._lose(why or self._silence())
                await self._rest(wait_s * (0.5 + self._host.random.random() / 2))
                wait_s = min(2 * wait_s, MOST_S)
        finally:
            while self._requests:
                self._requests.pop(0).done.set()
            await self._close()

    async def _connect(self) -> None:
        if self._driver is None:
            try:
                self._driver = self._make(self.assignment.device, self._host)
            except DriverError as exc:
                raise _Lost(str(exc)) from exc
            except Exception as exc:
                self._complain("its driver cannot be made", exc)
                raise _Lost(f"{type(exc).__name__}: {exc}") from exc
        try:
            await self._call("connect", self._driver.connect, CONNECT_S)
            self._set_state(await self._call("health", self._driver.health, CALL_S))
        except DriverError as exc:
            raise _Lost(str(exc)) from exc
        if self.state is DeviceState.OFFLINE:
            raise _Lost("the device is offline")
        self._health_at = self._host.clock.monotonic() + self.assignment.state_every
        if self.problem:
            self._log.info("device %s is back", self._name)
            self.problem = ""
        for point in self.points.values():
            point.begin(self._host.clock.monotonic())

    def _lose(self, why: str) -> None:
        if why != self.problem:  # not each attempt
            self._log.warning("device %s cannot be reached: %s", self._name, why)
            self.problem = why
        self._set_state(DeviceState.OFFLINE)

    async def _rest(self, seconds: float) -> None:
        """Wait until the next attempt; who asks meanwhile is told why there is no answer."""
        until = self._host.clock.monotonic() + seconds
        while (left := until - self._host.clock.monotonic()) > 0:
            while self._requests:
                request = self._requests.pop(0)
                request.failure = DriverError(self.problem or "the device is not connected")
                request.done.set()
            self._tell_state()
            await self._pause(left)

    async def _serve(self) -> None:
        """Raises _Lost."""
        while True:
            now = self._host.clock.monotonic()
            await self._write_due(now)
            for point in self.points.values():
                if point.collect_at <= now:
                    await self._collect(point)
                self._hand_over(point)
                if self._requests:
                    await self._answer()
                if self._wished:  # a slow device may be at its properties for long
                    await self._write_due(self._host.clock.monotonic())
            await self._answer()
            if self._health_at <= now:
                await self._check()
            self._tell_state()
            await self._pause(self._next_at() - self._host.clock.monotonic())

    async def _write_due(self, now: float) -> None:
        """Raises _Lost."""
        self._wished = False
        for point in self.points.values():
            if point.write_at <= now:
                await self._write_wanted(point)

    async def _pause(self, seconds: float) -> None:
        if self._requests or seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        if self._until < math.inf and self._host.clock.monotonic() + seconds >= self._until:
            self._scope.deadline = self._until = math.inf  # nobody is called
        self._wake = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._wake.wait()

    def _next_at(self) -> float:
        return min([self._health_at, self._tell_at, *(point.next_at() for point in self.points.values())])

    async def _close(self) -> None:
        close = getattr(self._driver, "close", None)
        if close is None:
            return
        with anyio.move_on_after(CLOSE_S, shield=True):
            try:
                await close()
            except Exception as exc:
                self._log.debug("device %s: close: %s", self._name, exc)

    # Calls of the driver

    async def _call(self, what: str, call: Callable[..., Awaitable[T]], timeout_s: float, *given: object) -> T:
        """Raises DriverError; _Lost where the driver is in a state that nobody knows. A call that takes too long ends the connection."""
        began, succeeded = self._host.clock.monotonic(), False
        self._limit(began, what, timeout_s)
        try:
            answer = await call(*given)
            succeeded = True
            return answer
        except DriverError:
            raise
        except anyio.get_cancelled_exc_class() as exc:
            if anyio.current_effective_deadline() == -math.inf:  # it is we who are cancelled
                raise
            raise _Lost(f"{what}: the driver has cancelled itself") from exc
        except OSError as exc:
            raise _Lost(f"{what}: {exc or type(exc).__name__}") from exc
        except Exception as exc:
            self._complain(what, exc)
            raise _Lost(f"{what}: {type(exc).__name__}: {exc}") from exc
        finally:
            seconds = self._host.clock.monotonic() - began
            self._meters.called(self.assignment.device.protocol, what, succeeded, seconds)

    def _limit(self, now: float, what: str, timeout_s: float) -> None:
        """Let the call that begins take so long, within a tenth: one timer serves many calls."""
        self._calling = (what, timeout_s)
        if abs(now + timeout_s - self._until) > timeout_s / 10:
            self._until = now + timeout_s
            self._scope.deadline = anyio.current_time() + timeout_s

    def _silence(self) -> str:
        return f"{self._calling[0]}: no answer within {self._calling[1]:g} s"

    def _complain(self, what: str, exc: Exception) -> None:
        """A bug of the driver: with its traceback, once as long as it is the same."""
        if f"{type(exc).__name__}: {exc}" not in self.problem:
            self._log.error("device %s: %s: the driver fails", self._name, what, exc_info=exc)

    async def _check(self) -> None:
        """Ask how the device is. Raises _Lost."""
        assert self._driver is not None
        self._health_at = self._host.clock.monotonic() + self.assignment.state_every
        try:
            state = await self._call("health", self._driver.health, CALL_S)
        except DriverError as exc:
            raise _Lost(str(exc)) from exc
        if state is DeviceState.OFFLINE:
            raise _Lost("the device is offline")
        self._set_state(state)

    async def _read(self, point: Point) -> str:
        """Raises DriverError, ConversionError, _Lost."""
        assert self._driver is not None
        raw = await self._call("read", self._driver.read, CALL_S, point.prop)
        text = to_text(point.prop, raw, point.layout)
        point.take(text, int(self._host.clock.time() * 1000))
        return text

    async def _collect(self, point: Point) -> None:
        try:
            await self._read(point)
        except (DriverError, ConversionError) as exc:
            if point.fail(str(exc)):
                self._log.warning("device %s: property %s cannot be read: %s", self._name, point.prop.name, exc)
            point.put_off(self._host.clock.monotonic())
            if isinstance(exc, DriverError):
                await self._check()
            return
        point.recover()
        point.advance(self._host.clock.monotonic())

    async def _write_wanted(self, point: Point) -> None:
        assert self._driver is not None
        wanted = point.wanted
        try:
            value = from_text(point.prop, wanted)
        except ConversionError as exc:
            self._log.warning("device %s: property %s cannot be %r: %s", self._name, point.prop.name, wanted[:80], exc)
            point.refuse()
            return
        try:
            await self._call("write", self._driver.write, CALL_S, point.prop, value)
        except DriverError as exc:
            if point.fail_write(wanted, str(exc), self._host.clock.monotonic(), self._host.random.random()):
                self._log.warning("device %s: property %s cannot be written: %s", self._name, point.prop.name, exc)
            await self._check()
            return
        point.wrote(wanted, self._host.clock.monotonic())

    async def _answer(self) -> None:
        """Do what others have asked for until now; who asks without end does not hold up the rest. Raises _Lost."""
        for _ in range(len(self._requests)):
            if not self._requests:  # who asked has gone
                return
            request = self._requests.pop(0)
            try:
                request.answer = await self._do(request)
                request.failure = None
            except (DriverError, ConversionError) as exc:
                request.failure = exc
            except _Lost as exc:
                request.failure = DriverError(str(exc))
                raise
            except anyio.get_cancelled_exc_class():
                if self._scope.cancel_called:
                    request.failure = DriverError(self._silence())
                raise
            finally:
                request.done.set()

    async def _do(self, request: _Request) -> str:
        """Raises DriverError, ConversionError, _Lost."""
        assert self._driver is not None
        point = request.point
        if request.value is None:
            return await self._read(point)
        value = from_text(point.prop, request.value)
        await self._call("write", self._driver.write, CALL_S, point.prop, value)
        point.collect_soon(self._host.clock.monotonic())
        return ""

    # Reports

    def _hand_over(self, point: Point) -> None:
        """Give the newest value on, if its cycle says so."""
        now = self._host.clock.monotonic()
        if not point.is_due(now):
            return
        point.report_at = now + point.prop.report_every
        if point.prop.push:
            self._push(self.assignment.device, point.prop, point.text, point.at_ms)
        point.is_fresh = False
        if not point.prop.report_to_cloud or not point.has_news(now):
            return
        if len(point.text) > REPORT_CHARS:
            if point.fail(f"{len(point.text)} characters"):
                self._log.info(
                    "device %s: property %s is too long for a report: REST and push have it",
                    self._name,
                    point.prop.name,
                )
            return
        point.told(now)
        observed = point.written or None
        self._reports.value(
            self.assignment.key, Reading(point.prop.name, point.text, point.prop.type, point.at_ms, observed)
        )

    def _set_state(self, state: DeviceState) -> None:
        self.state = state
        self._tell_state()

    def _tell_state(self) -> None:
        now = self._host.clock.monotonic()
        if self.state is DeviceState.UNKNOWN and self._state_told is None:
            return
        if self.state is not self._state_told or now >= self._tell_at:
            self._state_told, self._tell_at = self.state, now + Point.REFRESH_S
            self._reports.state(self.assignment.key, self.state)

    @property
    def _name(self) -> str:
        return "/".join(self.assignment.key)
