"""The edge's certificates: joining with a token, and renewal before they end.

    GET <bootstrap>/ca.crt        not verified, but its sha256 must be the first part of the token
    GET <bootstrap>/edge.crt      verified with that CA; the body is a request for a certificate, DER

Files (PEM): CA, certificate, key (mode 0600); paths from ``modules.edgeHub``. A renewal shows the present certificate instead of
a token. A node that the cloud has cut off joins again when it is given another token. Subjects are ``O=system:nodes, CN=system:node:<node>``, which every version of KubeEdge accepts.

Errors  JoinError: the cloud or the token is not usable now; trying again later may help.
Source  KubeEdge v1.12.7, edge/pkg/edgehub/certificate and cloud/pkg/cloudhub/servers/httpserver.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import anyio

from edgesite.net import pem
from edgesite.net.client import HttpClient
from edgesite.net.errors import NetError
from edgesite.net.pki import Pki, PkiError
from edgesite.net.tls import client_context
from edgesite.net.tls_faults import clock_fault, is_refused_as_expired

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock, Net, Section, Threads
    from edgesite.net.client import Answer
    from edgesite.net.pem import CertificateFacts

__all__ = ["Certificates", "JoinError", "Pem"]

_DEADLINE_S: Final = 30.0


class JoinError(Exception):
    """No certificate could be had."""


class Pem(NamedTuple):
    """The CA, our certificate and its key."""

    ca: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class _Files:
    ca: Path
    certificate: Path
    key: Path

    @property
    def token(self) -> Path:
        """Beside the certificate: the hash of the token that it came by."""
        return self.certificate.with_name(self.certificate.name + ".token")

    def settle(self) -> bool:
        """Finish or drop a replacement that a crash cut short; returns whether all files are there."""
        if _fresh(self.key).exists():
            _fresh(self.key).unlink()  # the key was not in place yet: the old pair holds
            _fresh(self.certificate).unlink(missing_ok=True)
        elif _fresh(self.certificate).exists():
            os.replace(_fresh(self.certificate), self.certificate)
        return all(one.is_file() for one in (self.ca, self.certificate, self.key))


class Certificates:
    """The certificate of one node. ``ensure`` once before dialling; ``renewal_at`` and ``renew`` later."""

    def __init__(
        self, node: str, config: Section, net: Net, threads: Threads, clock: Clock, pki: Pki, draw: random.Random
    ) -> None:
        self._node = node
        self._config = config
        self._net = net
        self._threads = threads
        self._clock = clock
        self._pki = pki
        self._renew_after = 0.7 + 0.2 * draw.random()
        self._files = _Files(Path(config["tlsCaFile"]), Path(config["tlsCertFile"]), Path(config["tlsPrivateKeyFile"]))

    async def ensure(self) -> None:
        """Join if there is no certificate yet. Raises JoinError."""
        if not await self._threads.run(self._files.settle):
            await self._join()

    async def join_anew(self) -> bool:
        """The cloud no longer takes our certificate: join by the token, if it is another one than we joined with before.
        Returns False if it is not. Raises JoinError."""
        used = await self._threads.run(self._used_token)
        if not self._token or used == _hash(self._token):
            return False
        await self._join()
        return True

    @property
    def _token(self) -> str:
        return str(self._config.get("token") or "")

    async def _join(self) -> None:
        parts = self._token.split(".")
        if len(parts) != 4:
            raise JoinError("there is no certificate and no join token (four parts, as `edgesite token` prints it)")
        ca = await self._fetch_ca(parts[0])
        trusted = client_context(ca=ca)
        certificate, key = await self._apply(trusted, {"Authorization": f"Bearer {'.'.join(parts[1:])}"})
        await self._threads.run(self._save, ca, certificate, key)
        await self._threads.run(self._note_token)

    def _used_token(self) -> str:
        """The hash of the token that we joined with; "" if that is not known."""
        try:
            return self._files.token.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _note_token(self) -> None:
        _write_fresh(self._files.token, _hash(self._token).encode(), 0o600)
        os.replace(_fresh(self._files.token), self._files.token)

    def context(self) -> ssl.SSLContext:
        """The TLS context for the hub: our certificate, and the cloud verified. Raises JoinError."""
        try:
            return client_context(ca=self._files.ca, certificate=self._files.certificate, key=self._files.key)
        except OSError as exc:
            raise JoinError(f"the certificate files cannot be used: {exc}") from exc

    async def pem(self) -> Pem:
        """What `context` is made of. Raises JoinError."""
        files = self._files
        try:
            return await self._threads.run(
                lambda: Pem(files.ca.read_bytes(), files.certificate.read_bytes(), files.key.read_bytes())
            )
        except OSError as exc:
            raise JoinError(f"the certificate files cannot be used: {exc}") from exc

    async def expired_for(self, error: BaseException, now: float) -> bool:
        """Whether the cloud has refused our certificate because it has expired, which it has by ``now`` too: it cannot renew
        itself any more."""
        try:
            return is_refused_as_expired(error) and (await self._facts()).not_after < now
        except JoinError:
            return False

    async def renewal_at(self) -> float:
        """When to renew, on the wall clock: at a random point from 70 to 90 % of the certificate's life. Raises JoinError."""
        facts = await self._facts()
        return facts.not_before + (facts.not_after - facts.not_before) * self._renew_after

    async def _facts(self) -> CertificateFacts:
        """Raises JoinError."""
        try:
            return pem.facts(await self._threads.run(self._files.certificate.read_bytes))
        except (OSError, ValueError) as exc:
            raise JoinError(f"{self._files.certificate} is no certificate: {exc}") from exc

    async def ask_date(self) -> str:
        """The cloud's time as its bootstrap server tells it, once that is verified: HTTP's Date, "" if it tells none. Raises
        JoinError."""
        answer = await self._get("/ca.crt", self.context(), {}, b"")
        return answer.headers.get("date") or ""

    async def renew(self) -> None:
        """Get a new certificate by the present one. Raises JoinError."""
        certificate, key = await self._apply(self.context(), {})
        try:
            await self._threads.run(self._save, None, certificate, key)
        except OSError as exc:  # a full disk, say: the present one serves on
            raise JoinError(f"the new certificate cannot be written: {exc}") from exc

    # -- the bootstrap server ------------------------------------------------------------------------------------

    async def _fetch_ca(self, expected: str) -> bytes:
        answer = await self._get("/ca.crt", client_context(verify=False), {}, b"")
        body = answer.body
        if answer.status != 200:
            raise JoinError(f"the cloud answered {answer.status} to the request for its CA")
        if pem.fingerprint(body) != expected:
            raise JoinError(
                "the cloud's CA is not the one that the token names: wrong cloud, or a token of another one"
            )
        return pem.from_der(body)

    async def _apply(self, tls: ssl.SSLContext, headers: dict[str, str]) -> tuple[bytes, bytes]:
        try:
            request = await self._pki.make_csr(f"system:node:{self._node}", organizations=["system:nodes"])
        except (PkiError, OSError) as exc:
            raise JoinError(f"no key could be made: {exc}") from exc
        answer = await self._get("/edge.crt", tls, {"NodeName": self._node, **headers}, pem.to_der(request.request))
        status, body = answer.status, answer.body
        if status in (400, 401):
            raise JoinError(f"the cloud refused the token or certificate: {body[:200].decode('utf-8', 'replace')}")
        if status != 200 or not body:  # a Go cloud says 200 without a body when it could not sign
            raise JoinError(f"the cloud gave no certificate (status {status})")
        certificate = pem.from_der(body)
        try:
            pem.facts(certificate)
        except ValueError as exc:
            raise JoinError(f"the cloud sent what is no certificate: {exc}") from exc
        return certificate, request.key

    async def _get(self, path: str, tls: ssl.SSLContext, headers: dict[str, str], body: bytes) -> Answer:
        """Ask the first of the servers that answers. Raises JoinError."""
        servers = [one.strip() for one in str(self._config["httpServer"]).split(",") if one.strip()]
        failure = JoinError("no address of the cloud is set")
        for server in servers:
            try:
                return await self._get_from(server, path, tls, headers, body)
            except JoinError as exc:
                failure = exc
        raise failure

    async def _get_from(
        self, server: str, path: str, tls: ssl.SSLContext, headers: dict[str, str], body: bytes
    ) -> Answer:
        address = urlsplit(server)
        host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname
        try:
            with anyio.fail_after(_DEADLINE_S):
                async with HttpClient(self._net, f"{host}:{address.port or 10002}", tls=tls) as client:
                    return await client.request("GET", path, headers, body)
        except (OSError, NetError) as exc:
            why = clock_fault(exc, self._clock.time()) or str(exc) or "no answer in time"
            raise JoinError(f"{address.geturl()}{path}: {why}") from exc

    def _save(self, ca: bytes | None, certificate: bytes, key: bytes) -> None:
        """Replace the files so that a crash at any point leaves a pair that fits (see `_Files.settle`)."""
        files = self._files
        if ca is not None:
            _write_fresh(files.ca, ca, 0o644)
            _put_in_place(files.ca)
        _write_fresh(files.key, key, 0o600)
        _write_fresh(files.certificate, certificate, 0o644)
        _put_in_place(files.key)
        _put_in_place(files.certificate)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _put_in_place(path: Path) -> None:
    """Replace the file by what was written beside it; a power cut keeps the order of such steps."""
    os.replace(_fresh(path), path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_fresh(path: Path, data: bytes, mode: int) -> None:
    """Write beside ``path``, durable on return."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = _fresh(path)
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
