"""A session with an OPC UA server, shared by the devices that name the same endpoint: servers in machines often allow a few only.

`Session.of` gives a device its part, `release` takes it back; the last one closes. What fails on the way (not what the server says) ends
the connection, and the next `connect` of any device makes a new one. asyncua's own reconnecting is not used: the SDK decides when.

Errors  DriverError. Its text has the server's status code by name.
State   One `Session` for each `Endpoint` in ``host.shared``. asyncua's client, with its tasks, belongs to it alone.
Source  OPC UA part 4 (services, status codes), part 6 (the binary protocol over TCP).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from asyncua import ua
from asyncua.client import Client
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509

from edgesite.mapper import DriverError
from edgesite_mapper_opcua.settings import Endpoint, file_of, password_in

if TYPE_CHECKING:
    from edgesite.mapper import Host

__all__ = ["Session"]

T = TypeVar("T")
GOODBYE_S: Final = 2.0
#: Codes that say nothing about what was asked: the session or its channel is gone.
_GONE: Final = (
    ua.uaerrors.BadSessionIdInvalid,
    ua.uaerrors.BadSessionClosed,
    ua.uaerrors.BadSessionNotActivated,
    ua.uaerrors.BadSecureChannelIdInvalid,
    ua.uaerrors.BadSecureChannelClosed,
    ua.uaerrors.BadConnectionClosed,
    ua.uaerrors.BadServerHalted,
    ua.uaerrors.BadShutdown,
)


class Session:
    def __init__(self, endpoint: Endpoint, host: Host) -> None:
        self.endpoint = endpoint
        self._host = host
        self._turn = anyio.Lock()
        self._client: Client | None = None
        self._users = 0
        self._attempts = 0
        self._failure = ""

    @classmethod
    def of(cls, host: Host, endpoint: Endpoint) -> Session:
        """Return the endpoint's session, made if nobody uses it yet; give it back by `release`."""
        session = host.shared.get((cls, endpoint))
        if session is None:
            session = host.shared[(cls, endpoint)] = cls(endpoint, host)
        session._users += 1
        return session

    async def release(self) -> None:
        """Say goodbye if nobody else uses the session."""
        self._users -= 1
        if self._users <= 0:
            self._host.shared.pop((Session, self.endpoint), None)
            async with self._turn:
                await self._drop(polite=True)

    async def connect(self) -> None:
        """Make sure that there is a session. Raises DriverError."""
        attempts = self._attempts
        async with self._turn:
            if self._client is not None:
                return
            if self._failure and attempts != self._attempts:
                raise DriverError(self._failure)  # another device has just tried in vain
            self._failure = f"{self.endpoint.url}: no session"
            client = Client(self.endpoint.url, timeout=self.endpoint.timeout_s)
            try:
                await self._secure(client)
                await client.connect()
            except BaseException as exc:
                client.disconnect_socket()  # asyncua leaves it open where it is cancelled
                if not isinstance(exc, Exception):
                    raise
                if not isinstance(exc, DriverError):
                    self._failure = f"{self.endpoint.url}: {_reason(exc)}"
                    raise DriverError(self._failure) from exc
                self._failure = str(exc)
                raise
            finally:
                self._attempts += 1
            self._client, self._failure = client, ""

    async def ask(self, request: Callable[[Client], Awaitable[T]]) -> T:
        """Return what the server answers. Raises DriverError."""
        client = self._client
        if client is None:
            raise DriverError(self._failure or f"{self.endpoint.url}: no session")
        try:
            return await request(client)
        except ua.uaerrors.UaStatusCodeError as exc:
            if isinstance(exc, _GONE):
                await self._lose(client)
            raise DriverError(f"{self.endpoint.url}: {_reason(exc)}") from exc
        except (ua.uaerrors.UaError, OSError, TimeoutError) as exc:
            await self._lose(client)
            raise DriverError(f"{self.endpoint.url}: {_reason(exc)}") from exc

    async def _lose(self, client: Client) -> None:
        async with self._turn:
            if self._client is client:
                await self._drop(polite=False)

    async def _drop(self, *, polite: bool) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if not polite:
            client.disconnect_socket()  # so that the goodbye, which ends asyncua's tasks, fails at once
        with anyio.move_on_after(GOODBYE_S, shield=True):
            try:
                await client.close_session()
                await client.close_secure_channel()
            except (ua.uaerrors.UaError, OSError, TimeoutError) as exc:
                self._host.log.debug("%s: goodbye: %s", self.endpoint.url, _reason(exc))
        client.disconnect_socket()

    async def _secure(self, client: Client) -> None:
        """Raises DriverError, and what asyncua raises."""
        endpoint = self.endpoint
        if endpoint.user:
            client.set_user(endpoint.user)
            password = endpoint.password
            if password.startswith("/"):
                password = password_in(await self._file(password))
            client.set_password(password)
        if endpoint.user_certificate:
            certificate, kind = await self._file_and_kind(endpoint.user_certificate)
            client.user_certificate = await uacrypto.load_certificate(certificate, kind)
            key, kind = await self._file_and_kind(endpoint.user_private_key)
            client.user_private_key = await uacrypto.load_private_key(key, None, kind)
        if not endpoint.policy:
            return
        certificate, kind = await self._file_and_kind(endpoint.certificate)
        if uri := _application_uri(certificate, kind):
            client.application_uri = uri
        key, key_kind = await self._file_and_kind(endpoint.private_key)
        remote = None
        if endpoint.remote_certificate:
            remote = uacrypto.CertProperties(*await self._file_and_kind(endpoint.remote_certificate))
        else:
            self._host.log.warning(
                "%s: without remoteCertificate nobody can tell whether it is the right server", endpoint.url
            )
        await client.set_security(
            getattr(security_policies, endpoint.policy),
            uacrypto.CertProperties(certificate, kind),
            uacrypto.CertProperties(key, key_kind),
            server_certificate=remote,
            mode=getattr(ua.MessageSecurityMode, endpoint.mode),
        )

    async def _file(self, path: str) -> bytes:
        return await self._host.threads.run(file_of, path)

    async def _file_and_kind(self, path: str) -> tuple[bytes, str]:
        content = await self._file(path)
        return content, "pem" if b"-----BEGIN " in content else "der"


def _application_uri(certificate: bytes, kind: str) -> str:
    """The URI that the certificate is for: servers compare it with what the client calls itself. Raises DriverError."""
    try:
        load = x509.load_pem_x509_certificate if kind == "pem" else x509.load_der_x509_certificate
        names = load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return ""
    except ValueError as exc:
        raise DriverError("certificate is none") from exc
    return uris[0] if uris else ""


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ua.uaerrors.UaStatusCodeError):
        return type(exc).__name__
    return (str(exc).partition("\n")[0] or type(exc).__name__)[:200]
