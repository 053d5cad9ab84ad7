"""What `edgesite.net.quic.core` uses of aioquic that aioquic does not promise: another version that lacks it is named here, member by member."""

from __future__ import annotations

import re
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from edgesite.net.quic import core

#: Of a connection of which the handshake has begun and a stream was written to -> what is lost without it.
OF_A_CONNECTION: Final = {
    "_close_event": "a peer's goodbye is heard at once",
    "_configuration": "a client's certificate is checked against our CA",
    "_crypto_buffers": "48 KB of each connection are given back",
    "_host_cids": "resets after a restart of the server are known to the client",
    "_is_client": "who has to show which certificate",
    "_local_max_data": "the peer may send no more than the application takes",
    "_loss.bytes_in_flight": "a client notices that nothing answers any more",
    "_peer_cid.stateless_reset_token": "a reset is told from noise",
    "_peer_cid_available": "a reset is told from noise",
    "_QuicConnection__frame_handlers": "7 KB of each connection are shared",
    "_streams": "a lane tells that it is behind",
    "tls._peer_certificate": "who the peer is",
    "tls._peer_certificate_chain": "a client's certificate is checked against our CA",
    "tls._request_client_certificate": "a server asks for a certificate",
    "tls._supported_groups": "fewer keys are made for each handshake",
}
OF_A_LIMIT: Final = ("frame_type", "name", "used", "sent", "value")
METHODS: Final = ("_initialize", "_replenish_connection_ids")


def connection() -> QuicConnection:
    made = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["x"], server_name="x"))
    made.connect(("127.0.0.1", 1), now=0.0)
    made.send_stream_data(0, b"x")
    return made


@pytest.mark.parametrize("member", OF_A_CONNECTION)
def test_a_connection_has_what_is_used_of_it(member: str) -> None:
    try:
        attrgetter(member)(connection())
    except AttributeError:
        pytest.fail(f"aioquic {version('aioquic')} has no {member}, by which {OF_A_CONNECTION[member]}")


def test_what_is_overridden_is_called() -> None:
    for name in METHODS:
        assert callable(getattr(QuicConnection, name, None)), f"aioquic {version('aioquic')} has no {name}"


def test_limits_and_streams_are_as_they_were() -> None:
    one: Any = connection()
    for name in OF_A_LIMIT:
        assert hasattr(one._local_max_data, name), f"aioquic {version('aioquic')} limits data in another way: no {name}"
    assert len(one._streams[0].sender._buffer) == 1, "a stream keeps what the peer has not confirmed elsewhere"


def test_the_list_is_whole() -> None:
    text = Path(core.__file__).read_text()
    used = set(re.findall(r"self\.((?:tls\._|_)\w+)", text)) | set(re.findall(r'"(_QuicConnection__\w+)"', text))
    own = {"_reset_key", "_window", "_name_tokens", "_granted", *METHODS}
    known = {one.partition(".")[0] if not one.startswith("tls.") else one for one in OF_A_CONNECTION}
    assert used - own == known
