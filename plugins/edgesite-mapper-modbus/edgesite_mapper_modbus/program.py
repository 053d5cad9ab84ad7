"""The driver as a program of its own, which reaches the edge over DMI: ``edgesite-mapper-modbus --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run
from edgesite_mapper_modbus.driver import ModbusDriver

__all__ = ["main"]


def main() -> int:
    return run(ModbusDriver, name="modbus")


if __name__ == "__main__":
    sys.exit(main())
