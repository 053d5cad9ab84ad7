"""The driver of one Modbus machine.

Registers are returned as the bytes that came, and the SDK makes values of them; bits are booleans, or whole numbers whose lowest bit is the first coil.
A property of fewer bits than its registers have (``shiftRight``, ``mask``, ``startIndex``) is written by reading the registers first.

Errors  DriverError. A machine is connected once it has answered, be it with an exception.
State   The machine's part in its line (`Bus`), and when it answered last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from edgesite.mapper import DeviceState, DriverError
from edgesite.mapper.conversion import ConversionError, Layout, encode, encode_within
from edgesite_mapper_modbus.bus import Bus, Client, Refused
from edgesite_mapper_modbus.settings import Spot, Table, check_port, line_of, spot_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from edgesite.mapper import Device, Host, Property, Value

__all__ = ["ModbusDriver"]

FRESH_S: Final = 10.0  #: how long an answer proves that the machine is there


class ModbusDriver:
    protocol: ClassVar[str] = "modbus"

    def __init__(self, device: Device, host: Host) -> None:
        self._device = device
        self._host = host
        self._bus: Bus | None = None
        self._unit = 1
        self._answered_at: float | None = None

    async def connect(self) -> None:
        self._answered_at = None
        line, self._unit = line_of(self._device.config), unit_of(self._device.config)
        if line.is_serial:
            await self._host.threads.run(check_port, line.address)
        if self._bus is None:
            self._bus = Bus.of(self._host, line)
        await self._probe()

    async def read(self, prop: Property) -> Value:
        spot = spot_of(prop)
        if spot.table.is_bits:
            bits = await self._read_bits(spot)
            return bits[0] if spot.count == 1 else sum(bit << at for at, bit in enumerate(bits))
        return await self._read_registers(spot)

    async def write(self, prop: Property, value: Value) -> None:
        spot = spot_of(prop)
        if not spot.table.is_writable:
            raise DriverError(f"property {prop.name} is an input of the machine: it cannot be written")
        if spot.table is Table.COILS:
            await self._write_bits(prop, spot, value)
        else:
            await self._write_registers(prop, spot, value)

    async def health(self) -> DeviceState:
        now = self._host.clock.monotonic()
        if self._answered_at is not None and now - self._answered_at < FRESH_S:
            return DeviceState.ONLINE
        try:
            await self._probe()
        except Refused as refused:
            return DeviceState.UNHEALTHY if refused.is_unwell else DeviceState.ONLINE
        return DeviceState.ONLINE

    async def close(self) -> None:
        if self._bus is not None:
            self._bus.release(self._host.shared)
            self._bus = None

    async def _probe(self) -> None:
        """Have the machine answer, by its first property, if it has any. Raises DriverError; Refused if it is not well."""
        if self._unit == 0 and self._reached().line.is_serial:
            return
        for prop in self._device.properties:
            try:
                spot_of(prop)
            except DriverError:
                continue  # said when it is read; the others are well
            try:
                await self.read(prop)
            except Refused as refused:
                if refused.is_unwell:
                    raise
            return

    async def _read_bits(self, spot: Spot) -> list[bool]:
        def request(client: Client) -> Awaitable[Any]:
            read = client.read_coils if spot.table is Table.COILS else client.read_discrete_inputs
            return read(spot.offset, count=spot.count, device_id=self._unit)

        bits = list((await self._ask(request)).bits[: spot.count])
        if len(bits) != spot.count:
            raise DriverError(f"unit {self._unit} sent {len(bits)} bits instead of {spot.count}")
        return bits

    async def _read_registers(self, spot: Spot) -> bytes:
        def request(client: Client) -> Awaitable[Any]:
            holds = spot.table is Table.HOLDING_REGISTERS
            read = client.read_holding_registers if holds else client.read_input_registers
            return read(spot.offset, count=spot.count, device_id=self._unit)

        registers = (await self._ask(request)).registers
        if len(registers) != spot.count:
            raise DriverError(f"unit {self._unit} sent {len(registers)} registers instead of {spot.count}")
        return b"".join(register.to_bytes(2, "big") for register in registers)

    async def _write_bits(self, prop: Property, spot: Spot, value: Value) -> None:
        if isinstance(value, str | bytes):
            raise DriverError(f"property {prop.name} is made of coils: no text can be written")
        whole = int(value)
        if whole < 0 or whole >> spot.count:
            raise DriverError(f"property {prop.name} has {spot.count} coils: {whole} does not fit")
        bits = [bool(whole >> at & 1) for at in range(spot.count)]
        if spot.count == 1:
            await self._tell("write_coil", spot.offset, bits[0])
        else:
            await self._tell("write_coils", spot.offset, bits)

    async def _write_registers(self, prop: Property, spot: Spot, value: Value) -> None:
        try:
            layout = Layout.of(prop.visitor)
            if layout.is_part or layout.mask or layout.right or layout.left:
                data = encode_within(prop, value, await self._read_registers(spot), layout=layout)
            else:
                data = encode(prop, value, 2 * spot.count, layout=layout)
        except ConversionError as exc:
            raise DriverError(f"property {prop.name}: {exc}") from exc
        registers = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        if spot.count == 1:
            await self._tell("write_register", spot.offset, registers[0])
        else:
            await self._tell("write_registers", spot.offset, registers)

    async def _tell(self, function: str, offset: int, value: Any) -> None:
        bus = self._reached()
        if self._unit == 0 and bus.line.is_serial:
            await bus.tell_all(
                lambda client: getattr(client, function)(offset, value, device_id=0, no_response_expected=True)
            )
            return
        await self._ask(lambda client: getattr(client, function)(offset, value, device_id=self._unit))

    async def _ask(self, request: Any) -> Any:
        bus = self._reached()
        if self._unit == 0 and bus.line.is_serial:
            raise DriverError("slaveID 0 is all machines of a serial line: none of them answers")
        self._answered_at = None
        answer = await bus.ask(self._unit, request)
        self._answered_at = self._host.clock.monotonic()
        return answer

    def _reached(self) -> Bus:
        if self._bus is None:
            raise DriverError("the machine is not connected")
        return self._bus
