"""RSA keys for signatures by RS256, without a cryptography library in memory: OpenSSL, which Python's ``ssl`` has loaded anyway.

    key = PrivateKey.load(pem); signature = key.sign(message); key.public.verifies(message, signature)

Private keys are used by OpenSSL alone (constant time, blinded), reached through the library that ``_ssl`` is linked with. A
verification handles no secret and is one power of a number.

Units   Sizes are bits.
Errors  InvalidKey for what is no RSA key; OSError where OpenSSL cannot be reached, or refuses.
State   A `PrivateKey` holds OpenSSL's key for its life.
Source  RFC 8017 (PKCS #1: key structures, RSASSA-PKCS1-v1_5, EMSA-PKCS1-v1_5), RFC 5280 (SubjectPublicKeyInfo), RFC 5208
        (PKCS #8), RFC 7517 and 7518 (JWK); key ids as kube-apiserver makes them.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from edgesite.net import pem

__all__ = ["MIN_BITS", "InvalidKey", "PrivateKey", "PublicKey"]

MIN_BITS: Final = 1024
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_BITS: Final = 0x03
_OCTETS: Final = 0x04
_RSA: Final = bytes.fromhex("300d06092a864886f70d0101010500")  #: AlgorithmIdentifier rsaEncryption
_SHA256: Final = bytes.fromhex("3031300d060960864801650304020105000420")  #: DigestInfo of a SHA-256 digest, without it


class InvalidKey(ValueError):
    """Not an RSA key in PEM, or one that is too small."""


def _der(text: bytes) -> bytes:
    try:
        return pem.to_der(text)
    except ValueError as exc:
        raise InvalidKey(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The modulus and the exponent."""

    n: int
    e: int

    @classmethod
    def load(cls, text: bytes) -> Self:
        """Read PEM: PUBLIC KEY, RSA PUBLIC KEY, or a private key of any form. Raises InvalidKey."""
        der = _der(text)
        if b"PRIVATE KEY-----" in text:
            return cls._of_private(der)
        try:
            parts = _sequence(der)
            if parts[0][0] == _SEQUENCE and parts[1][0] == _BITS:
                parts = _sequence(parts[1][1][1:])
            return cls._checked(*(_number(one) for one in parts[:2]))
        except (IndexError, TypeError) as exc:
            raise InvalidKey("not an RSA public key") from exc

    @classmethod
    def of_jwk(cls, jwk: Mapping[str, Any]) -> Self:
        """Read a JSON Web Key. Raises InvalidKey."""
        try:
            if jwk["kty"] != "RSA":
                raise InvalidKey("not an RSA key")
            return cls._checked(*(int.from_bytes(_from_base64url(jwk[one]), "big") for one in ("n", "e")))
        except (KeyError, TypeError, AttributeError, binascii.Error, UnicodeEncodeError) as exc:
            raise InvalidKey("not a JSON Web Key of RSA") from exc

    @classmethod
    def _of_private(cls, der: bytes) -> Self:
        """PKCS #1, or PKCS #8 around it. Raises InvalidKey."""
        try:
            parts = _sequence(der)
            if parts[1][0] == _SEQUENCE:
                if not _RSA.endswith(parts[1][1]):
                    raise InvalidKey("the private key is not an RSA key")
                parts = _sequence(parts[2][1])
            return cls._checked(_number(parts[1]), _number(parts[2]))
        except (IndexError, TypeError) as exc:
            raise InvalidKey("not an RSA private key") from exc

    @classmethod
    def _checked(cls, n: int, e: int) -> Self:
        if n.bit_length() < MIN_BITS or e < 3 or not e & 1 or not n & 1:
            raise InvalidKey(f"an RSA key has at least {MIN_BITS} bits and an odd exponent")
        return cls(n, e)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature (RS256) is that of the message."""
        size = (self.n.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != size or number >= self.n:
            return False
        digest = _SHA256 + hashlib.sha256(message).digest()
        wanted = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return pow(number, self.e, self.n).to_bytes(size, "big") == wanted

    def der(self) -> bytes:
        """The SubjectPublicKeyInfo."""
        key = _encoded(_SEQUENCE, _integer(self.n) + _integer(self.e))
        return _encoded(_SEQUENCE, _RSA + _encoded(_BITS, b"\x00" + key))

    @property
    def kid(self) -> str:
        """The key's id: the SHA-256 of its DER, in base64url."""
        return _base64url(hashlib.sha256(self.der()).digest())

    def jwk(self) -> dict[str, str]:
        """The key as a JSON Web Key."""
        n, e = ((one.bit_length() + 7) // 8 for one in (self.n, self.e))
        return {
            "use": "sig",
            "kty": "RSA",
            "kid": self.kid,
            "alg": "RS256",
            "n": _base64url(self.n.to_bytes(n, "big")),
            "e": _base64url(self.e.to_bytes(e, "big")),
        }


class PrivateKey:
    """Signs. Only OpenSSL sees the private part."""

    def __init__(self, der: bytes, public: PublicKey) -> None:
        """Raises OSError."""
        import ctypes

        lib = _openssl()
        data = (ctypes.c_char * len(der)).from_buffer_copy(der)
        at = ctypes.cast(data, ctypes.c_void_p)
        self._key = lib.d2i_AutoPrivateKey(None, ctypes.byref(at), len(der))
        if not self._key:
            raise OSError("OpenSSL does not take the private key")
        weakref.finalize(self, lib.EVP_PKEY_free, ctypes.c_void_p(self._key))
        self._lib, self.public = lib, public

    @classmethod
    def load(cls, text: bytes) -> Self:
        """Read PEM: RSA PRIVATE KEY or PRIVATE KEY, not encrypted. Raises InvalidKey, OSError."""
        if b"PRIVATE KEY-----" not in text:
            raise InvalidKey("not a private key")
        return cls(_der(text), PublicKey.load(text))

    def sign(self, message: bytes) -> bytes:
        """Return the signature by RS256; takes some 0.6 ms for 2048 bits. Raises OSError."""
        import ctypes

        lib = self._lib
        size = ctypes.c_size_t((self.public.n.bit_length() + 7) // 8)
        out = ctypes.create_string_buffer(size.value)
        context = lib.EVP_MD_CTX_new()
        if not context:
            raise OSError("OpenSSL has no memory")
        try:
            done = lib.EVP_DigestSignInit(context, None, lib.EVP_sha256(), None, self._key) == 1 and (
                lib.EVP_DigestSign(context, out, ctypes.byref(size), message, len(message)) == 1
            )
        finally:
            lib.EVP_MD_CTX_free(context)
        if not done:
            raise OSError("OpenSSL does not sign")
        return out.raw[: size.value]

    def __repr__(self) -> str:
        return f"PrivateKey(kid={self.public.kid!r})"  # never a key in a log


@functools.cache
def _openssl() -> Any:
    """The functions of the libcrypto that Python's ``ssl`` uses. Raises OSError where that cannot be reached."""
    import _ssl
    import ctypes

    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    lib = ctypes.CDLL(getattr(_ssl, "__file__", None))  # what a library is linked with is searched with it
    try:
        for name, result, arguments in (
            ("d2i_AutoPrivateKey", pointer, (pointer, pointer, ctypes.c_long)),
            ("EVP_PKEY_free", None, (pointer,)),
            ("EVP_MD_CTX_new", pointer, ()),
            ("EVP_MD_CTX_free", None, (pointer,)),
            ("EVP_sha256", pointer, ()),
            ("EVP_DigestSignInit", ctypes.c_int, (pointer, pointer, pointer, pointer, pointer)),
            ("EVP_DigestSign", ctypes.c_int, (pointer, pointer, pointer, ctypes.c_char_p, size)),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as exc:
        raise OSError(f"this Python keeps OpenSSL to itself: {exc}") from exc
    return lib


# -- DER


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The tag and the contents of the element at ``at``, and where the next begins. Raises IndexError, InvalidKey."""
    tag, length = data[at], data[at + 1]
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise InvalidKey("the key is cut short")
    return tag, data[start : start + length], start + length


def _sequence(data: bytes) -> list[tuple[int, bytes]]:
    """The elements of the sequence that ``data`` is. Raises IndexError, InvalidKey."""
    tag, body, _ = _element(data, 0)
    if tag != _SEQUENCE:
        raise InvalidKey("not an RSA key")
    found, at = [], 0
    while at < len(body):
        inner, contents, at = _element(body, at)
        found.append((inner, contents))
    return found


def _number(element: tuple[int, bytes]) -> int:
    if element[0] != _INTEGER:
        raise InvalidKey("not an RSA key")
    return int.from_bytes(element[1], "big", signed=True)


def _integer(value: int) -> bytes:
    return _encoded(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _encoded(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + contents


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64url(text: str) -> bytes:
    """Raises binascii.Error, UnicodeEncodeError, AttributeError for what is no text."""
    data = text.encode("ascii")
    return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
