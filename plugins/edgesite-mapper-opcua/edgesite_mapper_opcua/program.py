"""The driver as a program of its own, which reaches the edge over DMI: ``edgesite-mapper-opcua --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run
from edgesite_mapper_opcua.driver import OpcUaDriver

__all__ = ["main"]


def main() -> int:
    return run(OpcUaDriver, name="opcua")


if __name__ == "__main__":
    sys.exit(main())
