"""The driver of one Bluetooth Low Energy peripheral: each property is a characteristic, named by its UUID.

Reading returns the characteristic's bytes, and the SDK makes a value of them; with ``notify`` these are what the peripheral sent last by itself. Writing takes, in this order: the bytes that ``dataWrite`` has for the
value's text; for texts and bytes, themselves; for numbers, as many bytes as ``dataType`` says or the characteristic has now, where
``startIndex`` and ``endIndex`` say which of them, and from the higher to the lower if the first is behind (most peripherals send the lowest first).

Errors  DriverError.
State   The connection, and the newest notification of each characteristic that is listened to; both gone with the connection.
Source  KubeEdge v1.12, mappers-go mappers/ble (words; its ``dataWrite`` is read there but has no effect).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.mapper import DeviceState, DriverError
from edgesite.mapper.conversion import ConversionError, Layout, command, encode, encode_within
from edgesite_mapper_ble.adapter import Adapter, attempt

if TYPE_CHECKING:
    from bleak import BleakClient

    from edgesite.mapper import Device, Host, Property, Value

__all__ = ["BleDriver"]

LOOK_S: Final = 8.0
GOODBYE_S: Final = 2.0
FIRST_NEWS_S: Final = 5.0  #: how long the first notification is waited for
_ADDRESS: Final = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{4}(?:[0-9a-f]{4})?")
_BASE: Final = "-0000-1000-8000-00805f9b34fb"  #: of the UUIDs that have a short form


class BleDriver:
    protocol: ClassVar[str] = "bluetooth"

    def __init__(self, device: Device, host: Host) -> None:
        self._device = device
        self._host = host
        self._adapter: Adapter | None = None
        self._client: BleakClient | None = None
        self._is_lost = False
        self._news: dict[str, bytes | None] = {}  # by characteristic that is listened to
        self._news_came = anyio.Event()

    async def connect(self) -> None:
        await self._leave()
        config = self._device.config
        address = str(config.get("macAddress") or "").upper().replace("-", ":")
        if not _ADDRESS.fullmatch(address):
            raise DriverError("macAddress is none, as AA:BB:CC:00:11:22")
        if self._adapter is None:
            self._adapter = Adapter.of(self._host, str(config.get("adapter") or ""))
        self._is_lost = False
        self._client = await self._adapter.connect(address, LOOK_S, self._note_loss)

    async def read(self, prop: Property) -> Value:
        if prop.visitor.get("notify") in (True, "true"):
            return await self._newest(_uuid_of(prop))
        return await self._read(_uuid_of(prop))

    async def write(self, prop: Property, value: Value) -> None:
        uuid = _uuid_of(prop)
        try:
            data = _command(prop, value)
            if data is None:
                data = await self._bytes_of(prop, uuid, value)
        except ConversionError as exc:
            raise DriverError(f"property {prop.name}: {exc}") from exc
        client = self._connected()
        await attempt(client.address, client.write_gatt_char(uuid, data))

    async def health(self) -> DeviceState:
        self._connected()
        return DeviceState.ONLINE

    async def close(self) -> None:
        await self._leave()
        if self._adapter is not None:
            self._adapter.release()
            self._adapter = None

    async def _bytes_of(self, prop: Property, uuid: str, value: Value) -> bytes:
        """Raises DriverError, ConversionError."""
        layout = Layout.of(prop.visitor)
        if isinstance(value, str | bytes) and not layout.is_part:
            return value.encode() if isinstance(value, str) else value
        if layout.size and not layout.is_part and not layout.mask and not layout.right:
            return encode(prop, value, layout.size, layout=layout)
        return encode_within(prop, value, await self._read(uuid), layout=layout)

    async def _read(self, uuid: str) -> bytes:
        client = self._connected()
        return bytes(await attempt(client.address, client.read_gatt_char(uuid)))

    async def _newest(self, uuid: str) -> bytes:
        """What a characteristic notified last; the first time, what it notifies next. Raises DriverError."""
        client = self._connected()
        if uuid not in self._news:
            await attempt(client.address, client.start_notify(uuid, lambda _, data: self._take(uuid, bytes(data))))
            self._news.setdefault(uuid, None)
        with anyio.move_on_after(FIRST_NEWS_S):
            while self._news.get(uuid) is None:
                self._news_came = anyio.Event()
                await self._news_came.wait()
                self._connected()
        found = self._news.get(uuid)
        if found is None:
            raise DriverError(f"{client.address} has not sent characteristic {uuid} yet")
        return found

    def _take(self, uuid: str, data: bytes) -> None:
        self._news[uuid] = data
        self._news_came.set()

    def _connected(self) -> BleakClient:
        if self._client is None or self._is_lost or not self._client.is_connected:
            raise DriverError(f"{self._device.config.get('macAddress')} is not connected")
        return self._client

    def _note_loss(self) -> None:
        self._is_lost = True
        self._news_came.set()

    async def _leave(self) -> None:
        client, self._client = self._client, None
        self._news.clear()
        if client is None:
            return
        with anyio.move_on_after(GOODBYE_S, shield=True):
            try:
                await attempt(client.address, client.disconnect())
            except DriverError as exc:
                self._host.log.debug("goodbye: %s", exc)


def _uuid_of(prop: Property) -> str:
    """Raises DriverError."""
    text = str(prop.visitor.get("characteristicUUID") or "").lower()
    if not _UUID.fullmatch(text):
        raise DriverError(f"characteristicUUID of property {prop.name} is none")
    if len(text) in (4, 8):
        return text.rjust(8, "0") + _BASE
    return text


def _command(prop: Property, value: Value) -> bytes | None:
    """The bytes that ``dataWrite`` has for a value, or None if it has none. Raises ConversionError."""
    commands = prop.visitor.get("dataWrite")
    if not isinstance(commands, Mapping) or isinstance(value, bytes):
        return None
    word = str(value).lower() if isinstance(value, bool) else str(value)
    data: Any = commands.get(word)
    if data is None:
        return None
    found = command(data)
    if found is None:
        raise ConversionError(f"dataWrite of {word[:40]!r} is neither base64 nor a list of bytes")
    return found
