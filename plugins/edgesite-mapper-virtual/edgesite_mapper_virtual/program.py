"""The driver as a program of its own, which reaches the edge over DMI: ``edgesite-mapper-virtual --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run
from edgesite_mapper_virtual.driver import MachinesDriver

__all__ = ["main"]


def main() -> int:
    return run(MachinesDriver, name="virtual")


if __name__ == "__main__":
    sys.exit(main())
