"""The driver as a program of its own, which reaches the edge over DMI: ``edgesite-mapper-gige --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run
from edgesite_mapper_gige.driver import GigEDriver

__all__ = ["main"]


def main() -> int:
    return run(GigEDriver, name="gige")


if __name__ == "__main__":
    sys.exit(main())
