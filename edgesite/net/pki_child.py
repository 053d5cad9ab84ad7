"""The certificate process: one JSON request a line on stdin, one JSON answer a line on stdout. Runs alone, imports none of ours.

Units   Lifetimes are days, ``now`` is Unix seconds.
Errors  ``{"error": text}`` for a request that cannot be fulfilled; the next request is still served.
State   None; ends at the end of stdin.
Source  See `edgesite.net.pki`.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["main"]

#: Edge clocks may be behind: a fresh certificate must hold for them too.
BACKDATE: Final = datetime.timedelta(days=1)
_LAST: Final = datetime.datetime(
    9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC
)  #: "no well-defined expiry", RFC 5280 4.1.2.5
_USAGES: Final = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}
_NO_USAGE: Final = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def main() -> int:
    """Serve requests until the end of stdin."""
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(_answer(line)) + "\n")
        sys.stdout.flush()
    return 0


def _answer(line: bytes) -> dict[str, str]:
    try:
        request = json.loads(line)
        return _OPERATIONS[request.pop("operation")](**request)
    except (ValueError, TypeError, KeyError, InvalidSignature, UnsupportedAlgorithm) as exc:
        return {"error": str(exc) or type(exc).__name__}


def _make_ca(now: int, common_name: str, days: int, serial: int | None) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _lifetime(x509.CertificateBuilder(), now, days)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial if serial is not None else _serial())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True, "key_encipherment": True, "key_cert_sign": True}),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage(_USAGES.values()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return {"certificate": _pem(builder.sign(key, hashes.SHA256())), "key": _key_pem(key)}


def _issue(
    now: int,
    ca_certificate: str,
    ca_key: str,
    common_name: str,
    organizations: list[str],
    dns_names: list[str],
    ips: list[str],
    usages: list[str],
    days: int,
) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = _general_names(dns_names, ips)
    certificate = _sign(
        (ca_certificate, ca_key), key.public_key(), (common_name, organizations), names, usages, now, days
    )
    return {"certificate": certificate, "key": _key_pem(key)}


def _make_csr(
    now: int, common_name: str, organizations: list[str], dns_names: list[str], ips: list[str]
) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(_subject(common_name, organizations))
    if names := _general_names(dns_names, ips):
        csr = csr.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = csr.sign(key, hashes.SHA256())
    return {"request": made.public_bytes(serialization.Encoding.PEM).decode("ascii"), "key": _key_pem(key)}


def _general_names(dns_names: list[str], ips: list[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns_names]
    return names + [x509.IPAddress(ipaddress.ip_address(one)) for one in ips]


def _sign_csr(
    now: int,
    ca_certificate: str,
    ca_key: str,
    request: str,
    usages: list[str],
    days: int,
    allowed_names: list[str] | None,
) -> dict[str, str]:
    try:
        raw = base64.b64decode(request, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"unreadable certificate request: {exc}") from None
    pem = b"-----BEGIN" in raw
    csr = x509.load_pem_x509_csr(raw) if pem else x509.load_der_x509_csr(raw)
    if not csr.is_signature_valid:
        raise ValueError("the certificate request is not signed by its own key")
    common = [str(one.value) for one in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = [str(one.value) for one in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if not common or not common[0]:
        raise ValueError("the certificate request has no common name")
    subject = (common[0], organizations)
    names = [] if allowed_names is None else _names_of(csr, set(allowed_names))
    return {"certificate": _sign((ca_certificate, ca_key), csr.public_key(), subject, names, usages, now, days)}


def _names_of(csr: x509.CertificateSigningRequest, allowed: set[str]) -> list[x509.GeneralName]:
    """The DNS names and addresses that a request asks for. Raises ValueError for others, and for those not allowed."""
    try:
        names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
    for name in names:
        if not isinstance(name, x509.DNSName | x509.IPAddress):
            raise ValueError(f"names of the kind {type(name).__name__} are not certified")
        if str(name.value) not in allowed:
            raise ValueError(f"the name {name.value} is not one of the node's")
    return names


def _sign(
    ca: tuple[str, str],
    public_key: Any,
    subject: tuple[str, list[str]],
    names: list[x509.GeneralName],
    usages: list[str],
    now: int,
    days: int,
) -> str:
    ca_certificate = x509.load_pem_x509_certificate(ca[0].encode("ascii"))
    ca_key: Any = serialization.load_pem_private_key(ca[1].encode("ascii"), None)
    if ca_key.public_key() != ca_certificate.public_key():
        raise ValueError("the CA's key does not belong to its certificate")
    builder = (
        _lifetime(x509.CertificateBuilder(), now, days)
        .subject_name(_subject(*subject))
        .issuer_name(ca_certificate.subject)
        .public_key(public_key)
        .serial_number(_serial())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True, "key_encipherment": True}), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([_USAGES[one] for one in usages]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority(ca_certificate), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(ca_key, hashes.SHA256()))


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # Go's CA has none
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _subject(common_name: str, organizations: Iterable[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _lifetime(builder: x509.CertificateBuilder, now: int, days: int) -> x509.CertificateBuilder:
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    try:
        end = at + datetime.timedelta(days=days)
    except OverflowError:
        end = _LAST
    return builder.not_valid_before(at - BACKDATE).not_valid_after(end)


def _serial() -> int:
    return x509.random_serial_number() >> 97 or 1  # 62 bits, as Go's fit into an int64


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _make_signing_key(now: int) -> dict[str, str]:
    return {"key": _key_pem(rsa.generate_private_key(65537, 2048))}


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


_OPERATIONS: Final[dict[str, Callable[..., dict[str, str]]]] = {
    "make_ca": _make_ca,
    "issue": _issue,
    "make_csr": _make_csr,
    "sign_csr": _sign_csr,
    "make_signing_key": _make_signing_key,
}

if __name__ == "__main__":
    sys.exit(main())
