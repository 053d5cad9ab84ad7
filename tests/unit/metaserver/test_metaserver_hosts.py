"""Whose names lead to the open MetaServer."""

from __future__ import annotations

import pytest

from edgesite.edge.metaserver.guard import Open
from edgesite.edge.metaserver.hosts import Hosts

OPEN = Open(Hosts(["edge-1", "gateway.example.org", ""]))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:10550", "localhost", "LOCALHOST:10550", "localhost.:1", "api.localhost", "169.254.30.10:10550", "192.0.2.7", "[::1]:10550", "[fd00::1]",
     "Edge-1:10550", "gateway.example.org", None],
)  # fmt: skip
def test_clients_of_the_node_call_it_as_it_is_called(host: str | None) -> None:
    assert OPEN.is_called(host)
    assert OPEN.is_called(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example:10550", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:", "", ".", "[evil.example]", "evillocalhost", "edge-1.evil.example",
     "127.0.0.1:10550@evil.example", "x" * 5000 + ".localhost", "127.0.0.1:1:2"],
)  # fmt: skip
def test_names_that_were_led_here_are_refused(host: str) -> None:
    assert OPEN.is_called("127.0.0.1:10550")
    assert not OPEN.is_called(host)
