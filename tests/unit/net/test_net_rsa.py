"""RSA keys without a cryptography library in the process, held against the library."""

from __future__ import annotations

import base64
import hashlib
import threading

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.net import pem
from edgesite.net.rsa import InvalidKey, PrivateKey, PublicKey

PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()
PRIVATE = serialization.PrivateFormat
PUBLIC = serialization.PublicFormat
KEY = rsa.generate_private_key(65537, 2048)
OURS = PrivateKey.load(KEY.private_bytes(PEM, PRIVATE.TraditionalOpenSSL, PLAIN))


@pytest.mark.parametrize("form", [PRIVATE.TraditionalOpenSSL, PRIVATE.PKCS8])
def test_signatures_are_those_of_the_library(form: serialization.PrivateFormat) -> None:
    ours = PrivateKey.load(KEY.private_bytes(PEM, form, PLAIN))
    signature = ours.sign(b"message")
    assert signature == KEY.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    assert ours.public.verifies(b"message", signature)


@pytest.mark.parametrize("form", [PUBLIC.SubjectPublicKeyInfo, PUBLIC.PKCS1])
def test_public_keys_of_both_forms(form: serialization.PublicFormat) -> None:
    assert PublicKey.load(KEY.public_key().public_bytes(PEM, form)) == OURS.public


def test_identity_and_jwk() -> None:
    der = KEY.public_key().public_bytes(serialization.Encoding.DER, PUBLIC.SubjectPublicKeyInfo)
    assert OURS.public.der() == der
    jwk = OURS.public.jwk()
    assert jwk["kid"] == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    assert (jwk["kty"], jwk["alg"], jwk["use"], jwk["e"]) == ("RSA", "RS256", "sig", "AQAB")
    assert int.from_bytes(base64.urlsafe_b64decode(jwk["n"] + "=="), "big") == KEY.public_key().public_numbers().n
    assert "PRIVATE" not in repr(OURS)
    assert str(KEY.private_numbers().d) not in repr(OURS)


def test_every_changed_bit_is_seen() -> None:
    signature = OURS.sign(b"message")
    for at in range(0, len(signature), 17):
        changed = bytearray(signature)
        changed[at] ^= 1 << (at % 8)
        assert not OURS.public.verifies(b"message", bytes(changed))
    assert not OURS.public.verifies(b"messagf", signature)
    for wrong in (b"", signature[:-1], signature + b"\0", b"\0" + signature, b"\xff" * len(signature)):
        assert not OURS.public.verifies(b"message", wrong)


def test_a_forged_padding_is_refused() -> None:
    """With a small exponent, a verification that does not look at the whole padding is fooled (RFC 8017, 9.2)."""
    small = PublicKey(OURS.public.n, 3)
    digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"m").digest()
    block = b"\x00\x01\xff\x00" + digest
    number = int.from_bytes(block.ljust(256, b"\0"), "big")
    root = 1 << 683
    for _ in range(2000):  # Newton: the cube root, rounded up
        root = (2 * root + number // (root * root)) // 3
    assert not small.verifies(b"m", (root + 1).to_bytes(256, "big"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PRIVATE.PKCS8, PLAIN),
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(PEM, PUBLIC.SubjectPublicKeyInfo),
        KEY.private_bytes(PEM, PRIVATE.PKCS8, serialization.BestAvailableEncryption(b"x")),
    ],
)
def test_other_keys_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidKey):
        PublicKey.load(text)
    with pytest.raises((InvalidKey, OSError)):
        PrivateKey.load(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_anything_else_is_a_value_error(der: bytes) -> None:
    for label in ("PUBLIC KEY", "RSA PRIVATE KEY"):
        with pytest.raises(InvalidKey):
            PublicKey.load(pem.from_der(der, label))


def test_threads_may_sign_at_once() -> None:
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.extend(OURS.sign(b"m") for _ in range(5))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(made) == {OURS.sign(b"m")}
