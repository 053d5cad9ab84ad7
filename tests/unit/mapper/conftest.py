"""Mappers under virtual time, with a machine in memory."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from edgesite.mapper.driver import Host
from edgesite.mapper.metrics import Meters
from edgesite.testing.mapperrig import Edge, Machine
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def outlet() -> Edge:
    return Edge()


@pytest.fixture
def meters() -> Meters:
    return Meters(CollectorRegistry())


@pytest.fixture
def host() -> Host:
    nothing: Any = None
    return Host(nothing, VirtualClock(), nothing, random.Random(3), logging.getLogger("mapper-test"))
