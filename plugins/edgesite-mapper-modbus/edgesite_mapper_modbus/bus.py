"""A line with Modbus machines on it: one connection, one request at a time, shared by all devices that name it.

`Bus.of` gives a device its part in the line, `release` gives it back; the last one closes. A lost connection is made again by whoever asks next.
After a request that was not waited for to its end (time-out, cancellation) its answer may still come. On TCP the connection is
then made anew; a serial line, where answers carry no number of their request, is left alone until it should have come to rest.

A machine that did not answer is given less time when it is asked again, so that those that are silent do not use up the line's; each `PATIENCE`th time it
is given all of it. Those that have not answered stand behind one another, and one of them at a time beside those that have: a line of dead machines delays the
others by one silence.

Errors  DriverError for a line or machine that does not answer; Refused, a DriverError, for one that answers with an exception.
State   One `Bus` for each `Line` in ``host.shared``. pymodbus's client belongs to it alone.
Source  The Modbus application protocol V1.1b3, sections 6 and 7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from pymodbus import ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.framer import FramerType

from edgesite.mapper import DriverError
from edgesite_mapper_modbus.settings import Line

if TYPE_CHECKING:
    from pymodbus.pdu import ModbusPDU

    from edgesite.context import Clock
    from edgesite.mapper import Host

__all__ = ["Bus", "Refused"]

Client = AsyncModbusTcpClient | AsyncModbusSerialClient
Answer = TypeVar("Answer", bound="ModbusPDU")

PATIENCE: Final = 4
PROBE_S: Final = 0.5  #: that a silent machine is given between two of these times
REST_S: Final = 0.3  #: how long a serial line rests after an answer that did not come in time
#: Exception codes that do not depend on what was asked: the machine is there, but not well.
UNWELL: Final = frozenset({4, 6, 8})
_REFUSALS: Final = {
    1: "does not know this function",
    2: "has no such address",
    3: "does not take this value",
    4: "has failed",
    5: "needs longer",
    6: "is busy",
    8: "has a memory error",
    10: "cannot be reached by its gateway",
    11: "does not answer its gateway",
}


class Refused(DriverError):
    """The machine answered with an exception."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    @property
    def is_unwell(self) -> bool:
        return self.code in UNWELL


class Bus:
    def __init__(self, line: Line, clock: Clock) -> None:
        self.line = line
        self._clock = clock
        self._turn = anyio.Lock()
        self._silent_turn = anyio.Lock()  # taken first by who asks a machine that has not answered last
        self._answering: set[int] = set()  # units that have
        self._client: Client | None = None
        self._users = 0
        self._is_stale = False
        self._attempts = 0
        self._failure = ""
        self._silences: dict[int, int] = {}  # by unit: how often in a row it has not answered

    @classmethod
    def of(cls, host: Host, line: Line) -> Bus:
        """Return the line's bus, made if nobody uses it yet; give it back by `release`."""
        bus = host.shared.get((cls, line))
        if bus is None:
            bus = host.shared[(cls, line)] = cls(line, host.clock)
        bus._users += 1
        return bus

    def release(self, shared: MutableMapping[Hashable, Any]) -> None:
        """Close the line if nobody else uses it."""
        self._users -= 1
        if self._users <= 0:
            shared.pop((Bus, self.line), None)
            self._drop()

    async def ask(self, unit: int, request: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Return the machine's answer to one request. Raises DriverError."""
        if unit in self._answering:
            return await self._ask(unit, request)
        async with self._silent_turn:
            return await self._ask(unit, request)

    async def _ask(self, unit: int, request: Callable[[Client], Awaitable[Answer]]) -> Answer:
        attempts = self._attempts
        async with self._turn:
            client = await self._connected(attempts)
            self._is_stale = True
            silences = self._silences.get(unit, 0)
            patience_s = self.line.timeout_s if silences % PATIENCE == 0 else PROBE_S
            self._silences[unit] = silences + 1
            try:
                with anyio.fail_after(patience_s):
                    answer = await request(client)
                self._is_stale = False
            except TimeoutError as exc:
                raise DriverError(f"{self.line}: unit {unit} does not answer") from exc
            except (ModbusException, OSError) as exc:
                raise DriverError(f"{self.line}: unit {unit} does not answer ({_short(exc)})") from exc
            finally:
                if self._is_stale:
                    self._answering.discard(unit)
            self._answering.add(unit)
            del self._silences[unit]
        code = getattr(answer, "exception_code", 0)
        if answer.isError() or code:
            raise Refused(f"{self.line}: unit {unit} {_REFUSALS.get(code, f'answers with exception {code}')}", code)
        return answer

    async def tell_all(self, request: Callable[[Client], Awaitable[Any]]) -> None:
        """Send what no machine answers: a broadcast on a serial line. Raises DriverError."""
        attempts = self._attempts
        async with self._turn:
            client = await self._connected(attempts)
            try:
                await request(client)
            except (ModbusException, OSError) as exc:
                raise DriverError(f"{self.line}: {_short(exc)}") from exc
            await self._clock.sleep(
                REST_S
            )  # the turnaround delay of the protocol: machines act upon it without an answer

    async def _connected(self, attempts: int) -> Client:
        if self._is_stale:
            if self.line.is_serial:
                await self._clock.sleep(REST_S)
            else:
                self._drop()
            self._is_stale = False
        if self._client is not None and self._client.connected:
            return self._client
        if self._failure and attempts != self._attempts:
            raise DriverError(self._failure)  # somebody has just tried in vain while this device waited for its turn
        self._drop()
        self._client = self._new_client()
        self._failure = f"{self.line}: no connection"
        try:
            with anyio.fail_after(self.line.timeout_s):
                if not await self._client.connect():
                    raise DriverError(self._failure)
        except OSError as exc:
            raise DriverError(f"{self._failure} ({_short(exc)})") from exc
        finally:
            self._attempts += 1
            if not self._client.connected:
                self._drop()
        self._failure = ""
        return self._client

    def _new_client(self) -> Client:
        line = self.line  # time-outs are ours: pymodbus, whose errors do not tell them from others, is given more time
        if line.is_serial:
            return AsyncModbusSerialClient(
                line.address,
                baudrate=line.baud,
                bytesize=line.data_bits,
                parity=line.parity,
                stopbits=line.stop_bits,
                timeout=2 * line.timeout_s,
                retries=0,
                reconnect_delay=0,
            )
        framer = FramerType.RTU if line.is_rtu_over_tcp else FramerType.SOCKET
        return AsyncModbusTcpClient(
            line.address, port=line.port, framer=framer, timeout=2 * line.timeout_s, retries=0, reconnect_delay=0
        )

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _short(exc: BaseException) -> str:
    return str(exc).partition("\n")[0].removeprefix("Modbus Error: ")[:200] or type(exc).__name__
