"""The driver as a program of its own, which reaches the edge over DMI: ``edgesite-mapper-ble --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run
from edgesite_mapper_ble.driver import BleDriver

__all__ = ["main"]


def main() -> int:
    return run(BleDriver, name="ble")


if __name__ == "__main__":
    sys.exit(main())
