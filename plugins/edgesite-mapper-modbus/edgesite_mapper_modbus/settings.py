"""Where a Modbus machine is, and where a property lies in it, as devices say it.

A device of v1alpha2 has ``slaveID`` and, in ``common``, ``com`` or ``tcp``; one of v1beta1 has the same words in ``configData``, or
``ip``, ``port``, ``serialPort``, ``baudRate`` ... there without a section. A serial port wins over an address, as in KubeEdge.

    Line    how a line is reached: whoever names an equal line shares its connection
    Spot    which coils or registers a property is

Units   Baud, seconds.
Errors  DriverError, which names what is wrong.
Source  KubeEdge v1.12, mappers-go mappers/modbus (words and their meaning); the CRDs in build/crds/devices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from edgesite.mapper import DriverError, Property

__all__ = ["Line", "Spot", "Table", "check_port", "line_of", "spot_of", "unit_of"]

TCP_PORT: Final = 502
BAUD: Final = 9600
TIMEOUT_S: Final = 5.0
MOST_REGISTERS: Final = 125  #: in one answer, by the protocol
MOST_BITS: Final = 2000
_PARITIES: Final = {"none": "N", "even": "E", "odd": "O", "n": "N", "e": "E", "o": "O"}


class Table(Enum):
    COILS = "coil"
    DISCRETE_INPUTS = "discreteinput"
    INPUT_REGISTERS = "input"
    HOLDING_REGISTERS = "holding"

    @property
    def is_bits(self) -> bool:
        return self in (Table.COILS, Table.DISCRETE_INPUTS)

    @property
    def is_writable(self) -> bool:
        return self in (Table.COILS, Table.HOLDING_REGISTERS)


@dataclass(frozen=True, slots=True)
class Line:
    """A TCP connection or a serial port; equal lines are one."""

    address: str  #: host, or the path of the port
    port: int = 0  #: 0: a serial port
    baud: int = BAUD
    data_bits: int = 8
    parity: str = "N"
    stop_bits: int = 1
    is_rtu_over_tcp: bool = False
    timeout_s: float = TIMEOUT_S

    @property
    def is_serial(self) -> bool:
        return not self.port

    def __str__(self) -> str:
        return self.address if self.is_serial else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Spot:
    table: Table
    offset: int
    count: int


def line_of(config: Mapping[str, Any]) -> Line:
    """Raises DriverError."""
    common = _section(config, "common")
    com = {**config, **_section(common, "com"), **_section(config, "com")}
    tcp = {**config, **_section(common, "tcp"), **_section(config, "tcp")}
    timeout_s = _number(config, "timeout", TIMEOUT_S)
    if not 0 < timeout_s <= 600:
        raise DriverError("timeout is not within 0 to 600 seconds")
    if com.get("serialPort"):
        parity = _PARITIES.get(str(com.get("parity") or "none").lower())
        data_bits, stop_bits = _whole(com, "dataBits", 8), _whole(com, "stopBits", 1)
        baud = _whole(com, "baudRate", BAUD)
        if parity is None or data_bits not in (5, 6, 7, 8) or stop_bits not in (1, 2) or not 50 <= baud <= 4_000_000:
            raise DriverError("baudRate, dataBits, parity or stopBits of the serial port are not known")
        return Line(_port(str(com["serialPort"])), 0, baud, data_bits, parity, stop_bits, timeout_s=timeout_s)
    host, port = str(tcp.get("ip") or tcp.get("host") or ""), _whole(tcp, "port", TCP_PORT)
    if not host:
        raise DriverError("neither com.serialPort nor tcp.ip says where the machine is")
    if not 0 < port < 65536:
        raise DriverError(f"tcp.port {port} is no port")
    framing = str(tcp.get("framing") or "tcp").lower()
    if framing not in ("tcp", "rtu"):
        raise DriverError("framing is neither tcp nor rtu")
    return Line(host, port, is_rtu_over_tcp=framing == "rtu", timeout_s=timeout_s)


def _port(path: str) -> str:
    """A device file, and nothing else: pyserial takes URLs, too, some of which write files, and who writes a Device is not root. Raises DriverError."""
    if "://" in path or ".." in path.split("/") or ("/" in path and not path.startswith("/dev/")):
        raise DriverError("serialPort is no device file, as /dev/ttyS0")
    return path


def check_port(path: str) -> None:
    """Blocking. Raises DriverError for a device file that is no serial port: opening a watchdog starts it. One that is not there is left to who opens it."""
    real = os.path.realpath(path)
    terminals = Path("/sys/class/tty")
    if not os.path.exists(real) or real.startswith("/dev/pts/") or not terminals.is_dir():
        return
    if not (terminals / Path(real).name).exists():
        raise DriverError(f"{path} is no serial port")


def unit_of(config: Mapping[str, Any]) -> int:
    """The machine's number on its line; 1 if none is given. Raises DriverError."""
    unit = _whole(config, "slaveID", 1)
    if not 0 <= unit <= 255:
        raise DriverError(f"slaveID {unit} is not within 0 to 255")
    return unit


def spot_of(prop: Property) -> Spot:
    """Raises DriverError."""
    visitor = prop.visitor
    word = str(visitor.get("register") or "").lower().removesuffix("register")
    try:
        table = Table({"discrete": "discreteinput", "coils": "coil"}.get(word, word))
    except ValueError:
        raise DriverError(f"register of property {prop.name} is none of the four kinds") from None
    offset = _whole(visitor, "offset", 0)
    count = _whole(visitor, "limit", 0) or (1 if table.is_bits else _registers_of(prop))
    most = MOST_BITS if table.is_bits else MOST_REGISTERS
    if not 0 <= offset <= 0xFFFF or not 0 < count <= most or offset + count > 0x10000:
        raise DriverError(f"offset and limit of property {prop.name} lead beyond what a machine has")
    return Spot(table, offset, count)


def _registers_of(prop: Property) -> int:
    """How many registers a value of the type takes, where ``limit`` does not say it."""
    kind = str(prop.visitor.get("dataType") or "").lower()
    if kind.endswith("64") or (not kind and prop.type == "double"):
        return 4
    if kind.endswith("32") or (not kind and prop.type == "float"):
        return 2
    if prop.type in ("string", "bytes", "stream") and not kind:
        raise DriverError(f"limit of property {prop.name} must say how many registers its text has")
    return 1


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _whole(config: Mapping[str, Any], name: str, default: int) -> int:
    value = _number(config, name, default)
    if value != int(value):
        raise DriverError(f"{name} is no whole number")
    return int(value)


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    """Numbers come as texts, too: the data of v1beta1 is free, and DMI carries floats."""
    value = config.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DriverError(f"{name} is no number") from None
    if isinstance(value, bool) or number - number != 0:
        raise DriverError(f"{name} is no number")
    return number
