"""Virtual time: the loop jumps to the next timer instead of waiting for it."""

import random

import pytest

from edgesite.client import Client, SharedInformers
from edgesite.testing.fakeapi import FakeApi
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def rng():
    return random.Random(7)


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def client(api):
    return Client(api, component="test")


@pytest.fixture
def informers(client, clock, rng):
    return SharedInformers(client, clock, rng)
