"""Certificates as bytes, without a cryptography library: PEM and DER, validity, subject, fingerprint.

Units   Times are Unix seconds.
Errors  ValueError for what is not PEM or not a certificate.
State   None.
Source  RFC 7468 (PEM), X.690 (DER), RFC 5280 section 4.1 (certificate fields), RFC 5915 (EC key, "SEC 1").
"""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["CertificateFacts", "csr_subject", "facts", "fingerprint", "from_der", "to_der"]

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----", re.DOTALL)
_OIDS: Final = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
}
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OID: Final = 0x06
_UTC_TIME: Final = 0x17
_VERSION: Final = 0xA0


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What is needed to decide on a renewal."""

    not_before: float
    not_after: float
    subject: tuple[tuple[str, str], ...]  #: ("CN", "..."), ("O", "...") in order; other attributes are left out
    serial: int

    @property
    def common_name(self) -> str:
        return next((value for name, value in self.subject if name == "CN"), "")

    @property
    def organizations(self) -> tuple[str, ...]:
        return tuple(value for name, value in self.subject if name == "O")


def to_der(pem: bytes) -> bytes:
    """Return the contents of the first PEM block. For an ``EC PRIVATE KEY`` that is the SEC 1 structure. Raises ValueError."""
    found = _BLOCK.search(pem)
    if found is None:
        raise ValueError("no PEM block found")
    try:
        return base64.b64decode(b"".join(found[2].split()), validate=True)
    except binascii.Error as exc:
        raise ValueError(f"malformed PEM block: {exc}") from None


def from_der(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """Return a PEM block; labels: CERTIFICATE, CERTIFICATE REQUEST, EC PRIVATE KEY (for SEC 1), PRIVATE KEY (for PKCS #8)."""
    text = base64.b64encode(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    name = label.encode("ascii")
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, lines, name)


def fingerprint(certificate: bytes) -> str:
    """Return the sha256 hex of a certificate's DER, as join tokens carry it. Raises ValueError."""
    return hashlib.sha256(_as_der(certificate)).hexdigest()


def facts(certificate: bytes) -> CertificateFacts:
    """Read a certificate, PEM or DER. Nothing is verified. Raises ValueError."""
    try:
        outer, _ = _element(_as_der(certificate), 0, _SEQUENCE)
        body, _ = _element(outer, 0, _SEQUENCE)
        at = 0
        if body[0] == _VERSION:
            _, at = _element(body, at)
        serial, at = _element(body, at, _INTEGER)
        for _ in ("signature algorithm", "issuer"):
            _, at = _element(body, at, _SEQUENCE)
        validity, at = _element(body, at, _SEQUENCE)
        subject, _ = _element(body, at, _SEQUENCE)
        not_before, end = _time(validity, 0)
        not_after, _ = _time(validity, end)
        return CertificateFacts(not_before, not_after, _names(subject), int.from_bytes(serial, "big", signed=True))
    except (IndexError, UnicodeDecodeError) as exc:
        raise ValueError(f"not a certificate: {exc}") from None


def csr_subject(request: bytes) -> tuple[tuple[str, str], ...]:
    """Return the subject of a certificate request (PKCS #10), PEM or DER, as `CertificateFacts` has it. Nothing is verified.
    Raises ValueError."""
    try:
        outer, _ = _element(_as_der(request), 0, _SEQUENCE)
        body, _ = _element(outer, 0, _SEQUENCE)
        _, at = _element(body, 0, _INTEGER)
        subject, _ = _element(body, at, _SEQUENCE)
        return _names(subject)
    except (IndexError, UnicodeDecodeError) as exc:
        raise ValueError(f"not a certificate request: {exc}") from None


def _as_der(certificate: bytes) -> bytes:
    return to_der(certificate) if b"-----BEGIN" in certificate else certificate


def _element(data: bytes, at: int, tag: int | None = None) -> tuple[bytes, int]:
    """Return the contents of the element at ``at``, and where the next begins."""
    if tag is not None and data[at] != tag:
        raise ValueError(f"not a certificate: tag {data[at]:#x} where {tag:#x} belongs")
    length = data[at + 1]
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise ValueError("not a certificate: cut short")
    return data[start : start + length], start + length


def _time(data: bytes, at: int) -> tuple[float, int]:
    tag = data[at]
    raw, end = _element(data, at)
    text = raw.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    if len(text) != 14 or not text.isdigit():
        raise ValueError(f"not a certificate: time {text!r}")
    fields = [int(text[:4])] + [int(text[i : i + 2]) for i in range(4, 14, 2)]
    return float(calendar.timegm((*fields, 0, 0, 0))), end


def _names(subject: bytes) -> tuple[tuple[str, str], ...]:
    found = []
    at = 0
    while at < len(subject):
        rdn, at = _element(subject, at)
        inner = 0
        while inner < len(rdn):
            pair, inner = _element(rdn, inner, _SEQUENCE)
            oid, end = _element(pair, 0, _OID)
            value, _ = _element(pair, end)
            if (name := _OIDS.get(oid)) is not None:
                found.append((name, value.decode("utf-8", "replace")))
    return tuple(found)
