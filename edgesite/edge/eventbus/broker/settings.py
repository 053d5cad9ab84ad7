"""What is configured for the embedded broker, and what its core takes.

    modules.eventBus.mqttServerInternal     tcp://host:port, ssl://host:port or unix:///path
    modules.eventBus.broker                 files of mosquitto's make, certificates, limits (docs/mqtt.md)

Errors  ValueError names the setting, or the line of the file, that cannot be used; OSError for files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.edge.eventbus.address import address_of
from edgesite.net import tls
from edgesite.wire.mqtt.access import AccessError, Acl, Password, parse_passwords
from edgesite.wire.mqtt.session import Limits

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Section

__all__ = ["BrokerSettings", "Who", "read_settings", "renew_certificate"]

FILE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Who:
    """How clients are known."""

    passwords: dict[str, Password] | None = field(default=None, repr=False)  #: None: names mean nothing
    anonymous: bool | None = None  #: None: from this host alone, and only without passwords
    by_certificate: bool = False  #: the common name of a client certificate is the user

    def knows(self, user: str) -> bool:
        """Whether this user may still come. Those of certificates are not listed anywhere."""
        return self.by_certificate or (self.passwords is not None and user in self.passwords)

    def takes_anonymous(self, is_local: bool) -> bool:
        if self.anonymous is None:
            return is_local and self.passwords is None
        return self.anonymous


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    address: str
    limits: Limits
    who: Who
    acl: Acl | None = None
    tls: ssl.SSLContext | None = None


def read_settings(section: Section) -> BrokerSettings:
    """Read ``modules.eventBus`` and the files that it names. Raises ValueError, OSError."""
    given: Any = section.get("broker") or {}
    address, is_tls = address_of(section["mqttServerInternal"])
    passwords = acl = None
    if given.get("passwordFile"):
        passwords = _read(given["passwordFile"], parse_passwords)
    if given.get("aclFile"):
        acl = _read(given["aclFile"], Acl.parse)
    who = Who(passwords, given.get("allowAnonymous"), bool(given.get("useIdentityAsUsername")))
    usual = Limits()
    limits = Limits(
        packet_bytes=given.get("maxPacketBytes", usual.packet_bytes),
        connections=given.get("maxConnections", usual.connections),
        queued=max(section["mqttSessionQueueSize"], given.get("maxQueuedMessages", usual.queued)),
        queued_offline=section["mqttSessionQueueSize"],
    )
    return BrokerSettings(address, limits, who, acl, _tls(given) if is_tls else None)


def _read(path: str, parse: Any) -> Any:
    if os.path.getsize(path) > FILE_BYTES:
        raise ValueError(f"{path} is too large for a file of names")
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (AccessError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path}: {exc}") from None


def _tls(given: Any) -> ssl.SSLContext:
    if not given.get("certFile") or not given.get("keyFile"):
        raise ValueError("modules.eventBus.broker: an ssl:// address takes certFile and keyFile")
    client_ca = Path(given["caFile"]) if given.get("caFile") else None
    return tls.server_context(
        Path(given["certFile"]),
        Path(given["keyFile"]),
        client_ca=client_ca,
        require_client=bool(given.get("requireCertificate")),
        alpn=(),
    )


def renew_certificate(context: ssl.SSLContext, section: Section) -> None:
    """Show what the files hold now to who connects from now on. Raises OSError: then nothing has changed."""
    given: Any = section.get("broker") or {}
    client_ca = Path(given["caFile"]) if given.get("caFile") else None
    tls.renew(context, Path(given["certFile"]), Path(given["keyFile"]), client_ca=client_ca)
