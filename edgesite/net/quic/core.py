"""One QUIC connection without I/O: aioquic's, with mutual TLS, a receive window of fixed size and stateless resets.

    mutual TLS        the server asks for a certificate and verifies its chain, dates and purpose; without one nobody gets in
    window            the peer may send ``window_bytes`` beyond what the application took, as over TCP; aioquic's own window doubles
    stateless reset   a server that was killed tells its old peers at their next packet, by tokens made from its key (RFC 9000,
                      section 10.3)

This is the only file that reaches into aioquic (1.7, to which pyproject.toml holds it). What it uses there is listed in
`tests/unit/net/test_net_quic_inside.py`, which names what another version lacks. Such a version fails closed: no certificate is asked for,
none comes, and every peer is refused. Two members only save memory, and may be missing.

Units   Bytes.
Errors  PeerRefused from `Connection.verify_peer`; ValueError for PEM that cannot be used.
State   The connection's.
Source  RFC 9000 sections 4.1 (flow control) and 10.3; RFC 8446 section 4.3.2 (certificate request).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import EPOCHS, QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["ALPN", "Connection", "Credentials", "PeerRefused", "configuration", "reset_token"]

ALPN: Final = "edgesite-link/1"
CID_BYTES: Final = 8
BAD_CERTIFICATE: Final = QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.bad_certificate
NO_COMMON_ALPN: Final = QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.no_application_protocol
_TOKEN_BYTES: Final = 16
_LEAST_RESET_BYTES: Final = 21
_MOST_RESET_BYTES: Final = 64  #: our servers' have 43; what is longer carries data, and is not looked at
_STREAM_BYTES: Final = 1 << 20  #: first limit of one stream; the connection's window is what binds
_SUITES: Final = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]
_SHARED_EPOCHS: Final = {one: one for one in map(EPOCHS, ("1", "01", "IH1", "IH01"))}
_GROUPS: Final = [tls.Group.X25519, tls.Group.SECP256R1]  #: each makes a key for every handshake


class PeerRefused(Exception):
    """The peer's certificate does not let it in."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM. ``ca`` signs the peers."""

    certificate: bytes
    key: bytes
    ca: bytes


def configuration(credentials: Credentials, *, server_name: str | None, idle_s: float) -> QuicConfiguration:
    """Return what connections are made with; ``server_name`` None makes a server's. Raises ValueError."""
    certificates = tls.load_pem_x509_certificates(credentials.certificate)
    made = QuicConfiguration(
        is_client=server_name is not None,
        alpn_protocols=[ALPN],
        cadata=credentials.ca,
        cipher_suites=_SUITES,
        congestion_control_algorithm="cubic",
        connection_id_length=CID_BYTES,
        idle_timeout=idle_s,
        max_stream_data=_STREAM_BYTES,
        server_name=server_name,
    )
    made.certificate, made.certificate_chain = certificates[0], certificates[1:]
    made.private_key = tls.load_pem_private_key(credentials.key)
    if made.private_key.public_key() != certificates[0].public_key():
        raise ValueError("the key is not the certificate's")
    return made


def reset_token(key: bytes, cid: bytes) -> bytes:
    """Return the token by which a peer recognises that the connection of ``cid`` is gone."""
    return hmac.digest(key, cid, hashlib.sha256)[:_TOKEN_BYTES]


class _Window:
    """Stands for aioquic's limit of the connection's data, but grows only as the application takes what came."""

    def __init__(self, limit: object, window_bytes: int) -> None:
        self.frame_type = limit.frame_type  # type: ignore[attr-defined]
        self.name = limit.name  # type: ignore[attr-defined]
        self.used = 0
        self.sent = window_bytes
        self._window = window_bytes
        self._granted = window_bytes

    @property
    def value(self) -> int:
        return self._granted

    @value.setter
    def value(self, _: int) -> None:
        """aioquic doubles it here; ours stays."""

    def took(self, total: int) -> bool:
        """``total`` bytes were taken since the beginning; returns whether the peer should hear of it."""
        if total + self._window - self._granted < self._window // 2:
            return False
        self._granted = total + self._window
        return True


class Connection(QuicConnection):
    """See the module docstring. ``reset_key`` is a server's."""

    def __init__(
        self,
        made: QuicConfiguration,
        *,
        window_bytes: int,
        reset_key: bytes = b"",
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=made,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._reset_key = reset_key
        self._window = _Window(self._local_max_data, window_bytes)
        self._local_max_data = self._window  # type: ignore[assignment]
        handlers = getattr(self, "_QuicConnection__frame_handlers", {})
        for frame_type, (handler, epochs) in handlers.items():
            handlers[frame_type] = (handler, _SHARED_EPOCHS.get(epochs, epochs))  # 7 KB of every connection
        self._name_tokens()

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._supported_groups = list(_GROUPS)
        if not self._is_client:
            self.tls._request_client_certificate = True

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._name_tokens()

    def _name_tokens(self) -> None:
        if self._reset_key:
            for one in self._host_cids:
                one.stateless_reset_token = reset_token(self._reset_key, one.cid)

    # -- the peer ------------------------------------------------------------------------------------------------

    @property
    def peer_certificate(self) -> bytes:
        """DER. Raises PeerRefused if none was shown."""
        certificate = self.tls._peer_certificate
        if certificate is None:
            raise PeerRefused("the peer has shown no certificate")
        return certificate.public_bytes(Encoding.DER)

    def verify_peer(self) -> None:
        """To be called once the handshake is complete, before anything of the peer is believed. Raises PeerRefused."""
        certificate = self.tls._peer_certificate
        if certificate is None:
            raise PeerRefused("the peer has shown no certificate")
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if self._is_client else ExtendedKeyUsageOID.CLIENT_AUTH
        try:
            if not self._is_client:  # clients have verified it in the handshake, with the server's name
                chain = self.tls._peer_certificate_chain
                tls.verify_certificate(certificate, chain, cadata=self._configuration.cadata)
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return
        except (tls.Alert, ValueError) as exc:
            raise PeerRefused(f"the certificate is not accepted: {exc}") from exc
        if purpose not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
            raise PeerRefused("the certificate is not for this purpose")

    def is_reset(self, datagram: bytes) -> bool:
        """Whether a datagram tells that the server knows this connection no more."""
        if not _LEAST_RESET_BYTES <= len(datagram) <= _MOST_RESET_BYTES or datagram[0] & 0x80:
            return False
        tail = datagram[-_TOKEN_BYTES:]
        known = (self._peer_cid, *self._peer_cid_available)
        return any(one.stateless_reset_token and hmac.compare_digest(one.stateless_reset_token, tail) for one in known)

    def settle(self) -> None:
        """The handshake is over: let go of 48 KB that only it needs."""
        self._crypto_buffers = {}

    @property
    def ended(self) -> ConnectionTerminated | None:
        """How the connection ended, as soon as either side has said so: not only after the closing period."""
        return self._close_event

    @property
    def unanswered(self) -> bool:
        """Whether the peer has something to confirm."""
        return bool(self._loss.bytes_in_flight)

    # -- data ----------------------------------------------------------------------------------------------------

    def took(self, total: int) -> bool:
        """The application has taken ``total`` bytes so far; returns whether there is something to send."""
        return self._window.took(total)

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes of a stream that were written and that the peer has not confirmed."""
        stream = self._streams.get(stream_id)
        return len(stream.sender._buffer) if stream is not None else 0
