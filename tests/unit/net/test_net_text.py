"""Addresses, header lines and PEM."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.net import address, pem
from edgesite.net.headers import Headers, encode_headers


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("127.0.0.1:80", "tcp", "127.0.0.1", 80),
        ("[::1]:6443", "tcp", "::1", 6443),
        (":10350", "tcp", "", 10350),
        ("unix:///run/x.sock", "unix", "/run/x.sock", 0),
        ("mem:cloudhub", "mem", "cloudhub", 0),
    ],
)
def test_addresses_are_read_and_written(text: str, kind: str, host: str, port: int) -> None:
    found = address.parse(text)
    assert (found.kind, found.host, found.port) == (kind, host, port)
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:70000", "::1:80", "unix:run", "mem:", "host:8o", "host:\u0662"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        address.parse(text)


def test_headers_are_found_without_case_and_in_order() -> None:
    headers = Headers([(b"X-A", b"1"), (b"Connection", b"keep-alive, Upgrade"), (b"x-a", b"2")])
    assert headers.get("x-A") == "1"
    assert headers.get_all("X-a") == ["1", "2"]
    assert headers.has_token("connection", "upgrade")
    assert "X-B" not in headers
    assert dict(headers) == {"x-a": "2", "connection": "keep-alive, Upgrade"}


def test_header_values_stay_out_of_the_repr() -> None:
    assert "secret" not in repr(Headers([(b"Authorization", b"Bearer secret")]))


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_header_can_add_a_line(name: str, value: str) -> None:
    try:
        line = encode_headers({name: value})
    except ValueError:
        return
    assert line.count(b"\n") == line.count(b"\r") == 1
    assert line.endswith(b"\r\n")


@given(st.binary(max_size=300))
def test_pem_and_back(der: bytes) -> None:
    assert pem.to_der(pem.from_der(der, "EC PRIVATE KEY")) == der


@pytest.mark.parametrize("text", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"])
def test_what_is_no_pem_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="PEM"):
        pem.to_der(text)


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    try:
        pem.facts(data)
    except ValueError:
        return
