"""JSON Web Tokens: what is one, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import jwt

CLAIMS = {"iss": "https://kubernetes.default.svc", "aud": ["a", "b"], "exp": 5}


def sign(message: bytes) -> bytes:
    return message[::-1][:32]


def test_round_trip() -> None:
    token = jwt.make({"alg": "RS256", "kid": "k"}, CLAIMS, sign)
    parsed = jwt.parse(token)
    assert (parsed.header, parsed.claims) == ({"alg": "RS256", "kid": "k"}, CLAIMS)
    assert parsed.signature == sign(parsed.signed)
    assert parsed.signed == token.rpartition(".")[0].encode()
    assert "=" not in token


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "..",
        "e30.e30",
        "e30.e30.=",
        "W10.e30.AA",
        "e30.bnVsbA.AA",
        "é.e30.AA",
        "e30.e30.A+A_",
        "e30.e30.AB",
        "e30." + "A" * jwt.MOST_BYTES + ".AA",
    ],
)
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(jwt.InvalidToken):
        jwt.parse(token)


@given(st.text(max_size=60))
def test_anything_is_a_token_or_refused(text: str) -> None:
    try:
        parsed = jwt.parse(text)
    except jwt.InvalidToken:
        return
    assert jwt.make(parsed.header, parsed.claims, lambda _: parsed.signature).count(".") == 2


def test_audiences() -> None:
    assert jwt.audiences_of({"aud": "one"}) == ["one"]
    assert jwt.audiences_of({"aud": ["one", 2, "two"]}) == ["one", "two"]
    assert jwt.audiences_of({}) == jwt.audiences_of({"aud": 5}) == []
