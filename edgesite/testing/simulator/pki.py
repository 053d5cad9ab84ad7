"""Certificates for simulated processes: real ones, made in this process, the same for the same seed.

OpenSSL must accept them, for modules load them into TLS contexts; the simulated network then ignores those contexts, except for
`Identities`: whose certificate a client's context holds is what the server sees as its peer.

Units   Lifetimes are days.
Errors  PkiError as the real one.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import math
import random
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edgesite.context import Clock
from edgesite.net import pem, tls
from edgesite.net.pki import CLIENT, SERVER, Csr, KeyPair, PkiError

__all__ = ["Identities", "SimPki"]

BACKDATE: Final = datetime.timedelta(days=1)
CURVE_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class SimPki:
    """`edgesite.net.pki.Pki` of one process."""

    def __init__(self, rng: random.Random, clock: Clock) -> None:
        self._rng, self._clock = rng, clock

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SimPki]:
        yield self

    async def make_ca(self, common_name: str, *, days: int = 36500, serial: int | None = None) -> KeyPair:
        key = self._key()
        name = _name(common_name, ())
        builder = self._lifetime(days).subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(serial if serial is not None else self._serial())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return KeyPair(_signed(builder, key), _key_pem(key))

    async def issue(
        self,
        ca: KeyPair,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
        usages: Sequence[str] = SERVER,
        days: int = 365,
    ) -> KeyPair:
        key = self._key()
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ips]
        return KeyPair(self._sign(ca, key.public_key(), _name(common_name, organizations), names, days), _key_pem(key))

    async def make_csr(
        self,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
    ) -> Csr:
        key = self._key()
        request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organizations))
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ips]
        if names:
            request = request.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = request.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
        return Csr(made.public_bytes(serialization.Encoding.PEM), _key_pem(key))

    async def sign_csr(
        self,
        ca: KeyPair,
        csr: bytes,
        *,
        usages: Sequence[str] = CLIENT,
        days: int = 365,
        allowed_names: Sequence[str] | None = None,
    ) -> bytes:
        try:
            request = x509.load_pem_x509_csr(csr) if b"-----BEGIN" in csr else x509.load_der_x509_csr(csr)
        except ValueError as exc:
            raise PkiError(str(exc)) from None
        if not request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            raise PkiError("the certificate request has no common name")
        return self._sign(ca, request.public_key(), request.subject, [], days)

    async def make_signing_key(self) -> bytes:
        return _signing_key()

    def _sign(
        self, ca: KeyPair, public_key: Any, subject: x509.Name, names: list[x509.GeneralName], days: int
    ) -> bytes:
        issuer = x509.load_pem_x509_certificate(ca.certificate)
        key: Any = serialization.load_pem_private_key(ca.key, None)
        builder = self._lifetime(days).subject_name(subject).issuer_name(issuer.subject).public_key(public_key)
        builder = builder.serial_number(self._serial())
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _signed(builder, key)

    def _lifetime(self, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.fromtimestamp(int(self._clock.time()), datetime.UTC)
        return (
            x509.CertificateBuilder().not_valid_before(now - BACKDATE).not_valid_after(now + datetime.timedelta(days))
        )

    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(self._rng.randrange(1, CURVE_ORDER), ec.SECP256R1())

    def _serial(self) -> int:
        return self._rng.getrandbits(150) | 1


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


@functools.cache
def _signing_key() -> bytes:
    """A small RSA key, the same in every world: making one takes a while, and its bytes are sent through the network."""
    rng, exponent = random.Random(0), 65537
    p, q = (_prime(rng, 512, exponent) for _ in range(2))
    d = pow(exponent, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def _prime(rng: random.Random, bits: int, exponent: int) -> int:
    """A number that is prime but for a negligible chance (Fermat's test to several bases; the two top bits are set)."""
    while True:
        candidate = rng.getrandbits(bits) | (3 << (bits - 2)) | 1
        if candidate % exponent != 1 and all(pow(base, candidate - 1, candidate) == 1 for base in (2, 3, 5, 7)):
            return candidate


class Identities:
    """Remembers which certificate was loaded into which TLS context; an SSLContext does not tell."""

    def __init__(self) -> None:
        self._certificates: weakref.WeakKeyDictionary[ssl.SSLContext, bytes] = weakref.WeakKeyDictionary()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, contexts that `edgesite.net.tls` makes are remembered."""
        load = tls._load_chain

        def remember(context: ssl.SSLContext, certificate: Any, key: Any) -> None:
            load(context, certificate, key)
            self._certificates[context] = certificate if isinstance(certificate, bytes) else certificate.read_bytes()

        tls._load_chain = remember
        try:
            yield
        finally:
            tls._load_chain = load

    def of(self, context: Any) -> bytes | None:
        """The certificate that a context presents, PEM."""
        return self._certificates.get(context)

    def peercert(self, context: Any) -> dict[str, Any] | None:
        """What the other end's ``get_extra_info("peercert")`` says."""
        certificate = self.of(context)
        if certificate is None:
            return None
        names = {"CN": "commonName", "O": "organizationName"}
        return {
            "subject": tuple(((names[kind], value),) for kind, value in pem.facts(certificate).subject if kind in names)
        }
